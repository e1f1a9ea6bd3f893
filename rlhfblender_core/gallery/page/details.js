// What is drawn beside a video: the action, probabilities, reward, uncertainty, value, and chosen observations.

/** Observations beside each other, and how many of them are offered as buttons. */
const MOST_OBSERVED = 4, MOST_BUTTONS = 16;
const UNCERTAINTY = {
  entropy: "entropy, nats", q_softmax_entropy: "entropy of Q-values", quantile_spread: "spread of quantiles",
  twin_critic_gap: "|Q1 − Q2|",
};

class Details {
  /** @param observed names of observations that were chosen; @param onObserve is told others */
  constructor({ arrays, episode, observed, onObserve, onSeek }) {
    Object.assign(this, { arrays, episode, observed, onObserve, common: { length: episode.length, onSeek } });
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

  get isDiscrete() {
    const array = this.arrays.get("actions");
    return Boolean(array) && this.width("actions") === 1 && !(array.values instanceof Float32Array)
      && array.values.every(Number.isInteger);
  }

  /** An action's label, else its number. */
  actionName(action) {
    return this.names?.[action] ?? String(action);
  }

  /** What is done at a step, for the label over the picture; null where it isn't known. */
  actionText(step) {
    if (!this.arrays.has("actions")) return null;
    const { values } = this.arrays.get("actions"), width = this.width("actions");
    if (!this.isDiscrete) {
      const shown = Array.from(values.slice(step * width, step * width + Math.min(width, 4)), formatNumber);
      return shown.join("  ") + (width > 4 ? " …" : "");
    }
    const action = values[step], among = this.width("probs");
    const probability = action < among ? this.arrays.get("probs").values[step * among + action] : null;
    return this.actionName(action) + (probability === null ? "" : ` · ${Math.round(probability * 100)} %`);
  }

  actionTracks() {
    if (!this.isDiscrete) return this.columns("actions", "Action", { names: this.names });
    const text = (action) => (this.names?.[action] === undefined ? `action ${action}` : `${this.names[action]} (${action})`);
    return [new Strip({ ...this.common, title: "Action", values: this.arrays.get("actions").values, text })];
  }

  /** The columns of an array as curves in one picture, at most as many as there are colours. */
  columns(name, title, { names = null, ...options } = {}) {
    const width = Math.min(COLOURS, this.width(name));
    if (!width) return [];
    const series = Array.from({ length: width }, (_, index) =>
      ({ name: names?.[index] ?? String(index), values: this.column(name, index) }));
    const more = this.width(name) > width ? `, the first ${width}` : "";
    return [new Plot({ ...this.common, title: `${title}${more}`, series, ...options })];
  }

  rewardTracks() {
    if (!this.arrays.has("rewards")) return [];
    const growing = this.column("rewards"); // the file holds the return so far
    const rewards = growing.map((value, step) => value - (step ? growing[step - 1] : 0));
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
      ({ name: `${array.slice(4)}${this.width(array) > 1 || array === "obs" ? `[${index}]` : ""}`, array, index })));
  }

  observationTracks() {
    const all = this.observations;
    if (!all.length) return [];
    const known = (this.observed ?? []).filter((name) => all.some((one) => one.name === name));
    const chosen = new Set(known.length ? known : all.slice(0, MOST_OBSERVED).map(({ name }) => name));
    const series = all.filter(({ name }) => chosen.has(name)).slice(0, COLOURS)
      .map(({ name, array, index }) => ({ name, values: this.column(array, index) }));
    const tools = [all.length <= MOST_BUTTONS ? this.buttons(all, chosen) : this.list(all, chosen)];
    return [new Plot({ ...this.common, title: "Observation", series, tools: all.length > 1 ? tools : [] })];
  }

  buttons(all, chosen) {
    return element("span", { class: "choice", role: "group", "aria-label": "Observations" }, ...all.map(({ name }) => {
      const button = element("button", { type: "button", "aria-pressed": chosen.has(name), "data-observation": name }, name);
      button.addEventListener("click", () => {
        chosen.has(name) ? chosen.delete(name) : chosen.add(name);
        if (chosen.size) this.onObserve(all.filter((one) => chosen.has(one.name)).map((one) => one.name));
      });
      return button;
    }));
  }

  list(all, chosen) {
    const input = element("input", { class: "observed", type: "text", value: [...chosen].join(", "),
      "aria-label": "Observations", title: `${all[0].name} to ${all.at(-1).name}` });
    input.addEventListener("change", () => {
      const wanted = input.value.split(/[\s,]+/).map((name) => (/^\d+$/.test(name) ? `[${name}]` : name));
      const names = all.map(({ name }) => name).filter((name) => wanted.includes(name)).slice(0, COLOURS);
      if (names.length) this.onObserve(names);
      else input.value = [...chosen].join(", ");
    });
    return input;
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
    const isShort = location.protocol === "file:" && this.episode.has("arrays") && !this.arrays.has("actions");
    return [lacks.length ? `This episode has ${lacks.join(" and ")}.` : "",
      isShort ? "Actions and observations are shown when the page comes from a web server." : ""].filter(Boolean).join(" ");
  }
}
