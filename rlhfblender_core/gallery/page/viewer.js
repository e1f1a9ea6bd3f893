// One episode, large: its video, its curves, what is known of it.

/** By whether it had one once. */
const NO_VIDEO = {
  false: "No video: this episode was recorded without rendering.",
  true: "The video's file is missing. Make it again with verify.py --repair.",
};

class Viewer {
  /** @param grid says what comes before and after; @param onChange is told which episode is shown, null for none */
  constructor(grid, onChange) {
    Object.assign(this, { grid, onChange, curves: [], episode: null });
    this.dialog = $("viewer");
    $("close").addEventListener("click", () => this.dialog.close());
    $("previous").addEventListener("click", () => this.move(-1));
    $("next").addEventListener("click", () => this.move(1));
    $("play").addEventListener("click", () => this.player?.toggle());
    $("speed").addEventListener("change", () => this.player?.setSpeed(Number($("speed").value)));
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.dialog.addEventListener("keyup", (event) => {
      // Space plays, also right after a button was clicked; Enter presses buttons.
      if (event.key === " " && !event.target.closest("select")) event.preventDefault();
    });
  }

  async open(experiment, checkpoint, episode) {
    this.leave();
    Object.assign(this, { experiment, checkpoint, episode });
    if (!this.dialog.open) this.dialog.showModal();
    this.onChange(episode);
    this.describe();
    this.startPlayer(episode.video ? null : NO_VIDEO[episode.lost]);
    let curves;
    try {
      curves = await loadCurves(checkpoint, episode);
    } catch (error) {
      $("curves").replaceChildren(element("p", { class: "empty" }, error.message));
      return;
    }
    if (this.episode === episode) this.showCurves(curves);
  }

  startPlayer(noVideo) {
    const onStep = (step, isPlaying) => this.onStep(step, isPlaying);
    this.player = noVideo ? new ClockPlayer(this.episode, onStep, noVideo)
      : new VideoPlayer(this.episode, onStep, () => this.startPlayer("The video can't be played here."));
    $("screen").replaceChildren(this.player.root);
    $("screen").classList.toggle("bare", Boolean(noVideo));
    this.player.setSpeed(Number($("speed").value));
    this.onStep(0, false);
    if (!noVideo) this.player.play();
  }

  showCurves({ rewards, uncertainty, stride }) {
    const { length } = this.episode;
    const onSeek = (step) => this.player.seek(step);
    const common = { stride, length, onSeek };
    this.curves.forEach((curve) => curve.close());
    this.curves = [];
    if (rewards) {
      const choice = element("span", { class: "choice", role: "group", "aria-label": "Reward curve" });
      const reward = new Curve({ ...common, kind: "reward", title: "Reward", values: rewards, tools: [choice] });
      const kinds = stride === 1 ? [["per step", rewards], ["cumulative", cumulative(rewards)]] : [["per step", rewards]];
      choice.append(...kinds.map(([label, values], index) => {
        const button = element("button", { type: "button", "aria-pressed": index === 0 }, label);
        button.addEventListener("click", () => {
          for (const other of choice.children) other.setAttribute("aria-pressed", other === button);
          reward.show(values);
        });
        return button;
      }));
      this.curves.push(reward);
    }
    if (uncertainty) {
      const title = `Uncertainty${uncertaintyName(this.checkpoint.uncertainty)}`;
      this.curves.push(new Curve({ ...common, kind: "uncertainty", title, values: uncertainty }));
    }
    const missing = [!rewards && "no readable rewards", !uncertainty && "no uncertainty"].filter(Boolean).join(" and ");
    const note = missing ? [element("p", { class: "muted note" }, `This episode has ${missing}.`)] : [];
    $("curves").replaceChildren(...this.curves.map((curve) => curve.root), ...note);
    this.curves.forEach((curve) => curve.draw());
    this.onStep(this.player.step ?? 0, this.player.isPlaying);
  }

  onStep(step, isPlaying) {
    $("play").classList.toggle("is-playing", isPlaying);
    $("step").textContent = `${(step + 1).toLocaleString("en")} / ${this.episode.length.toLocaleString("en")}`;
    for (const curve of this.curves) curve.moveTo(step);
  }

  describe() {
    const { experiment, checkpoint, episode } = this;
    $("viewer-title").textContent = `Episode ${episode.n}`;
    $("viewer-subtitle").textContent = `${experiment.name} · ${checkpoint.label}`;
    const facts = [
      ["Return", formatNumber(episode.return)],
      ["Length", plural(episode.length, "step")],
      ["Ended", { terminated: "by the environment", truncated: "cut off", open: "not recorded" }[episode.ended]],
      ["Agent", checkpoint.agent],
      ["Environment", experiment.environment],
      ["Seed", episode.seed ?? "not known"],
      ...(episode.video ? [["Video", `${formatNumber(episode.fps)} fps, ${checkpoint.width} × ${checkpoint.height}`]] : []),
      ...episode.warnings.map((warning) => ["Warning", warning]),
    ];
    $("facts").replaceChildren(...facts.map(([name, value]) => element("div", {},
      element("dt", {}, name), element("dd", {}, value))));
    if (episode.arrays) {
      $("facts").append(element("div", {}, element("dt", {}, "Arrays"),
        element("dd", {}, element("a", { href: episode.arrays, download: "" }, ".npz"))));
    }
    $("previous").disabled = !this.grid.neighbour(episode, -1);
    $("next").disabled = !this.grid.neighbour(episode, 1);
  }

  move(by) {
    const other = this.grid.neighbour(this.episode, by);
    if (other) this.open(this.experiment, this.checkpoint, other);
  }

  onKey(event) {
    if (event.target.closest("select") || event.altKey || event.ctrlKey || event.metaKey) return;
    const ten = event.shiftKey ? 10 : 1;
    const actions = {
      " ": () => this.player.toggle(),
      ArrowLeft: () => this.stepBy(-ten),
      ArrowRight: () => this.stepBy(ten),
      ArrowUp: () => this.move(-1),
      ArrowDown: () => this.move(1),
      Home: () => this.player.seek(0),
      End: () => this.player.seek(this.episode.length - 1),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  stepBy(by) {
    if (this.player.isPlaying) this.player.toggle();
    this.player.seek(Math.max(0, Math.min(this.episode.length - 1, (this.player.step ?? 0) + by)));
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  leave() {
    this.player?.close();
    this.curves.forEach((curve) => curve.close());
    this.curves = [];
    $("curves").replaceChildren();
  }

  closed() {
    const { episode } = this;
    this.leave();
    this.player = null;
    this.episode = null;
    this.onChange(null);
    if (episode) this.grid.focus(episode);
  }
}

function cumulative(values) {
  let sum = 0;
  return Float64Array.from(values, (value) => (sum += value));
}

function uncertaintyName(kind) {
  const names = {
    entropy: "entropy, nats", q_softmax_entropy: "entropy of Q-values", quantile_spread: "spread of quantiles",
    twin_critic_gap: "|Q1 − Q2|",
  };
  return names[kind] ? ` · ${names[kind]}` : "";
}
