// What is drawn beside a video: the action, probabilities, reward, uncertainty, value, and chosen observations.

/** Observations beside each other, and how many of them are offered as buttons. */
const MOST_OBSERVED = 4, MOST_BUTTONS = 16;
/** Choices of one step that are shown as strips. */
const MOST_STRIPS = 6;
const UNCERTAINTY = {
  entropy: "entropy, nats", q_softmax_entropy: "entropy of Q-values", quantile_spread: "spread of quantiles",
  twin_critic_gap: "|Q1 − Q2|",
};

const KINDS = { obs: "Observations", act: "Parts of the action" };

/** A name as it was before it became a file's: "a%2Fb" is "a/b". */
function plainName(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

/** A name in a list of names, and the names of such a list: in quotes where it has what separates them. */
const quotedName = (name) => (/[\s,"]/.test(name) ? JSON.stringify(name) : name);

function typedNames(text) {
  return (text.match(/"(?:[^"\\]|\\.)*"|[^\s,]+/g) ?? []).map((name) => {
    try {
      return name.startsWith('"') ? JSON.parse(name) : name;
    } catch {
      return name;
    }
  });
}

class Details {
  /** @param chosen names of observations (obs) and of parts of the action (act) that were chosen; @param onChoose is told others */
  constructor({ arrays, episode, chosen, onChoose, onSeek }) {
    Object.assign(this, { arrays, episode, chosen, onChoose, common: { length: episode.length, onSeek } });
    this.first = episode.checkpoint.firstAction ?? 0;
    this.names = episode.checkpoint.actions;
    this.tracks = [
      ...this.actionTracks(), ...this.columns("probs", "Probability", { bounds: [0, 1], names: this.names }),
      ...this.columns("q_values", "Q-value", { names: this.names }),
      ...this.rewardTracks(), ...this.uncertaintyTracks(), ...this.valueTracks(), ...this.observationTracks(),
    ];
  }

  column(name, index = 0) {
    const { shape, values } = this.arrays.get(name);
    const width = shape.slice(1).reduce((product, side) => product * side, 1);
    return Float64Array.from({ length: shape[0] }, (_, step) => values[step * width + index]);
  }

  width(name) {
    return this.arrays.get(name)?.shape.slice(1).reduce((product, side) => product * side, 1) ?? 0;
  }

  /** Whether actions are choices: whole numbers, one or several of them. */
  get areChoices() {
    return /^[iub]/.test(this.arrays.get("actions")?.code ?? "");
  }

  /** Whether an action, counted from the space's first one, is the number of its probability: what isn't known to be isn't said. */
  get areNumbered() {
    const { values } = this.arrays.get("actions") ?? { values: [] };
    const count = this.width("probs") || this.width("q_values") || this.names?.length || Infinity;
    return this.areChoices && this.width("actions") === 1
      && values.every((action) => action >= this.first && action < this.first + count);
  }

  /** An action's label; undefined where it has none. */
  nameOf(action) {
    return this.areNumbered ? this.names?.[action - this.first] : undefined;
  }

  /** What is done at a step, for the label over the picture; null where it isn't known. */
  actionText(step) {
    if (!this.arrays.has("actions")) return null;
    const { values } = this.arrays.get("actions"), width = this.width("actions");
    if (!this.areChoices || width > 1) {
      const shown = Array.from(values.slice(step * width, step * width + Math.min(width, 4)), (value, index) =>
        `${this.areChoices || !this.names?.[index] ? "" : `${this.names[index]} `}${formatNumber(value)}`);
      return shown.join("  ") + (width > 4 ? " …" : "");
    }
    const action = values[step], among = this.width("probs");
    const probability = this.areNumbered && among ? this.arrays.get("probs").values[step * among + action - this.first] : null;
    return (this.nameOf(action) ?? `action ${action}`) + (probability === null ? "" : ` · ${Math.round(probability * 100)} %`);
  }

  actionTracks() {
    const width = this.width("actions");
    if (!width) return [];
    if (this.areChoices && width <= MOST_STRIPS) return Array.from({ length: width }, (_, index) => this.strip(index, width));
    const all = Array.from({ length: width }, (_, index) => ({ name: this.names?.[index] ?? `[${index}]`, array: "actions", index }));
    const hasSpread = this.width("action_mean") === width && this.width("action_std") === width;
    return this.chosenTracks("act", hasSpread ? "Action · mean ± deviation" : "Action", all, (index) => {
      if (!hasSpread) return {};
      const mean = this.column("action_mean", index), deviation = this.column("action_std", index);
      return { band: [mean.map((value, step) => value - deviation[step]), mean.map((value, step) => value + deviation[step])] };
    });
  }

  strip(index, width) {
    const name = (action) => (width === 1 ? this.nameOf(action) : undefined);
    const text = (action) => (name(action) === undefined ? (width === 1 ? `action ${action}` : String(action)) : `${name(action)} (${action})`);
    return new Strip({ ...this.common, title: width === 1 ? "Action" : `Action [${index}]`, values: this.column("actions", index), text });
  }

  /** The columns of an array as curves in one picture, at most as many as there are colours. */
  columns(name, title, { names = null, ...options } = {}) {
    const width = Math.min(COLOURS, this.width(name));
    if (!width) return [];
    const series = Array.from({ length: width }, (_, index) =>
      ({ name: names?.[index] ?? (this.areNumbered ? String(this.first + index) : `[${index}]`), values: this.column(name, index) }));
    const more = this.width(name) > width ? `, the first ${width}` : "";
    return [new Plot({ ...this.common, title: `${title}${more}`, series, ...options })];
  }

  rewardTracks() {
    if (!this.arrays.has("rewards")) return [];
    const growing = this.column("rewards"); // the file holds the return so far
    const own = this.arrays.get("step_rewards")?.values; // what NaN and infinity in a sum hide
    const rewards = growing.map((value, step) => own?.[step] ?? value - (step ? growing[step - 1] : 0));
    const choice = element("span", { class: "choice", role: "group", "aria-label": "Reward curve" });
    const track = new Plot({ ...this.common, title: "Reward", series: [{ name: "reward", values: rewards }], tools: [choice] });
    choice.append(...[["per step", rewards], ["so far", growing]].map(([label, values], index) => {
      const button = element("button", { type: "button", "aria-pressed": index === 0 }, label);
      button.addEventListener("click", () => {
        for (const other of choice.children) other.setAttribute("aria-pressed", other === button);
        track.show(values);
      });
      return button;
    }));
    return [track];
  }

  uncertaintyTracks() {
    const kind = this.episode.checkpoint.uncertainty;
    const has = (name) => this.arrays.has(name) && this.arrays.get(name).values.some(Number.isFinite);
    const track = (name, title) => new Plot({ ...this.common, title, colour: 1, series: [{ name, values: this.column(name) }] });
    const shown = has("uncertainty") ? [track("uncertainty", `Uncertainty${UNCERTAINTY[kind] ? ` · ${UNCERTAINTY[kind]}` : ""}`)] : [];
    // Where the uncertainty is the entropy it isn't drawn twice.
    if (has("entropy") && !(shown.length && kind === "entropy")) shown.push(track("entropy", "Entropy, nats"));
    return shown;
  }

  valueTracks() {
    if (!this.arrays.has("values")) return [];
    return [new Plot({ ...this.common, title: "Value", colour: 3, series: [{ name: "value", values: this.column("values") }] })];
  }

  /** Every single number that is observed: {name, array, index}. */
  get observations() {
    const names = [...this.arrays.keys()].filter((name) => name === "obs" || name.startsWith("obs.")).sort();
    return names.flatMap((array) => Array.from({ length: this.width(array) }, (_, index) =>
      ({ name: `${plainName(array.slice(4))}${this.width(array) > 1 || array === "obs" ? `[${index}]` : ""}`, array, index })));
  }

  observationTracks() {
    return this.chosenTracks("obs", "Observation", this.observations);
  }

  /** Those of many numbers that were chosen, as curves in one picture, with buttons or a list to choose others. */
  chosenTracks(kind, title, all, more = () => ({})) {
    if (!all.length) return [];
    const known = (this.chosen[kind] ?? []).filter((name) => all.some((one) => one.name === name));
    const chosen = new Set(known.length ? known : all.slice(0, MOST_OBSERVED).map(({ name }) => name));
    const series = all.filter(({ name }) => chosen.has(name)).slice(0, COLOURS)
      .map(({ name, array, index }) => ({ name, values: this.column(array, index), ...more(index) }));
    const tools = [all.length <= MOST_BUTTONS ? this.buttons(kind, all, chosen) : this.list(kind, all, chosen)];
    return [new Plot({ ...this.common, title, series, tools: all.length > 1 ? tools : [] })];
  }

  buttons(kind, all, chosen) {
    return element("span", { class: "choice", role: "group", "aria-label": KINDS[kind] }, ...all.map(({ name }) => {
      const button = element("button", { type: "button", "aria-pressed": chosen.has(name), [`data-${kind}`]: name }, name);
      button.addEventListener("click", () => {
        chosen.has(name) ? chosen.delete(name) : chosen.add(name);
        if (chosen.size) this.onChoose(kind, all.filter((one) => chosen.has(one.name)).map((one) => one.name));
      });
      return button;
    }));
  }

  list(kind, all, chosen) {
    const text = () => [...chosen].map(quotedName).join(", ");
    const input = element("input", { class: "observed", type: "text", value: text(), [`data-${kind}`]: "",
      "aria-label": KINDS[kind], title: `${all.length} numbers, ${all[0].name} to ${all.at(-1).name}` });
    input.addEventListener("change", () => {
      const wanted = typedNames(input.value).map((name) => (/^\d+$/.test(name) ? `[${name}]` : name));
      const names = all.map(({ name }) => name).filter((name) => wanted.includes(name)).slice(0, COLOURS);
      if (names.length) this.onChoose(kind, names);
      else input.value = text();
    });
    return element("span", {}, input, element("span", { class: "muted many" }, ` of ${all.length.toLocaleString("en")}`));
  }

  /** What this episode doesn't have, or doesn't show here, in words; "" for nothing. */
  get missing() {
    if (!this.arrays.size) {
      return location.protocol === "file:" && this.episode.chunk === null
        ? "This episode's curves are shown when the page comes from a web server, or once gallery.py was run on this folder."
        : "This episode has no readable curves.";
    }
    const lacks = [!this.arrays.has("rewards") && "no readable rewards",
      !this.tracks.some((track) => track.names.includes("uncertainty")) && "no uncertainty"].filter(Boolean);
    const isShort = location.protocol === "file:" && this.episode.has("arrays") && (this.arrays.isCut || !this.arrays.has("actions"));
    return [lacks.length ? `This episode has ${lacks.join(" and ")}.` : "",
      isShort ? `${this.arrays.has("actions") ? "Longer arrays" : "Actions and observations"} are shown when the page comes from a web server.` : ""].filter(Boolean).join(" ");
  }
}
