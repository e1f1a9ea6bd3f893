// One episode, large: its video, its curves, what is known of it; or the same episode of several checkpoints.

/** By whether it had one once. */
const NO_VIDEO = {
  false: "No video: this episode was recorded without rendering.",
  true: "The video's file is missing. Make it again with verify.py --repair.",
};

class Viewer {
  /**
   * @param grid says what comes before and after
   * @param onChange is told when what is shown changes
   * @param onCheckpoint is told when an episode of another checkpoint is opened
   */
  constructor(grid, onChange, onCheckpoint) {
    Object.assign(this, { grid, onChange, onCheckpoint, tracks: [], episode: null, across: 0, chosen: {}, details: null });
    this.dialog = $("viewer");
    $("close").addEventListener("click", () => this.dialog.close());
    $("previous").addEventListener("click", () => this.move(-1));
    $("next").addEventListener("click", () => this.move(1));
    $("play").addEventListener("click", () => this.player?.toggle());
    $("speed").addEventListener("change", () => this.player?.setSpeed(Number($("speed").value)));
    $("across").addEventListener("change", () => this.showAcross(Number($("across").value)));
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.dialog.addEventListener("keyup", (event) => {
      // Space plays, also right after a button was clicked; Enter presses buttons.
      if (event.key === " " && !event.target.closest("select, input")) event.preventDefault();
    });
  }

  showAcross(across) {
    this.across = across;
    this.open(this.experiment, this.episode);
  }

  async open(experiment, episode) {
    this.leave();
    Object.assign(this, { experiment, episode, length: episode.length });
    if (!this.dialog.open) this.dialog.showModal();
    $("across").value = String(this.across);
    $("across-field").hidden = experiment.checkpoints.length < 2;
    this.dialog.classList.toggle("is-across", this.across > 0);
    this.onChange();
    this.describe();
    await (this.across ? this.openAcross(episode) : this.openOne(episode));
  }

  async openOne(episode) {
    this.startPlayer(episode.video ? null : NO_VIDEO[episode.has("lostVideo")]);
    const arrays = await loadArrays(episode);
    if (this.episode === episode && !this.across) this.showDetails(arrays);
  }

  async openAcross(episode) {
    const { experiment } = this;
    const found = await loadAcross(experiment, episode.checkpoint, episode.n, this.across);
    if (this.episode !== episode || !this.across) return;
    this.player = new TogetherPlayer(found, (step, isPlaying) => this.onStep(step, isPlaying), async (one) => {
      this.across = 0;
      if (one.checkpoint !== this.grid.checkpoint) await this.onCheckpoint(one.checkpoint);
      this.open(experiment, one);
    });
    const { player } = this;
    this.length = player.length;
    player.tiles.find((tile) => tile.episode.checkpoint === episode.checkpoint)?.root.classList.add("is-current");
    $("screen").replaceChildren(player.root);
    $("screen").classList.remove("bare");
    player.setSpeed(Number($("speed").value));
    player.say(0);
    player.play();
    const isSame = new Set(found.map(({ seed }) => seed)).size === 1 && found[0].seed !== null;
    this.describeAcross(found, isSame);
    const tracks = await togetherTracks(found, player.length, (step) => this.player.seek(step));
    if (this.player === player) this.showTracks(tracks, isSame ? "" : "Not all of these episodes are known to start from the same seed.");
  }

  startPlayer(noVideo) {
    const onStep = (step, isPlaying) => this.onStep(step, isPlaying);
    this.player = noVideo ? new ClockPlayer(this.episode, onStep, element("p", { class: "no-video" }, noVideo))
      : new VideoPlayer(this.episode, onStep, () => this.startPlayer("The video can't be played here."));
    this.label = element("span", { class: "action-label", hidden: "" });
    $("screen").replaceChildren(this.player.root, this.label);
    $("screen").classList.toggle("bare", Boolean(noVideo));
    this.player.setSpeed(Number($("speed").value));
    this.onStep(0, false);
    if (!noVideo) this.player.play();
  }

  showDetails(arrays) {
    const make = () => {
      this.details = new Details({ arrays, episode: this.episode, chosen: this.chosen,
        onChoose: (kind, names) => {
          this.chosen[kind] = names;
          this.onChange();
          make();
        },
        onSeek: (step) => this.player.seek(step) });
      this.showTracks(this.details.tracks, this.details.missing);
    };
    make();
  }

  showTracks(tracks, note) {
    this.tracks.forEach((track) => track.close());
    this.tracks = tracks;
    $("curves").replaceChildren(...tracks.map((track) => track.root), ...(note ? [element("p", { class: "muted note" }, note)] : []));
    tracks.forEach((track) => track.draw());
    this.onStep(this.player.step ?? 0, this.player.isPlaying);
  }

  onStep(step, isPlaying) {
    $("play").classList.toggle("is-playing", isPlaying);
    $("step").textContent = `${(step + 1).toLocaleString("en")} / ${this.length.toLocaleString("en")}`;
    for (const track of this.tracks) track.moveTo(Math.min(step, track.length - 1));
    const text = this.across ? null : this.details?.actionText(step) ?? null;
    if (!this.label) return;
    this.label.hidden = text === null;
    this.label.textContent = text ?? "";
  }

  describe() {
    const { experiment, episode } = this;
    const { checkpoint } = episode;
    $("viewer-title").textContent = `Episode ${episode.n}`;
    $("viewer-subtitle").textContent = this.across ? `${experiment.name} · across checkpoints` : `${experiment.name} · ${checkpoint.label}`;
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
    this.showFacts(facts);
    if (episode.has("arrays")) {
      $("facts").append(element("div", {}, element("dt", {}, "Arrays"),
        element("dd", {}, element("a", { href: episode.file("episodes"), download: "" }, ".npz"))));
    }
    $("previous").disabled = !this.grid.hasNeighbour(episode, -1);
    $("next").disabled = !this.grid.hasNeighbour(episode, 1);
  }

  describeAcross(found, isSame) {
    this.showFacts([["Checkpoints", `${found.length} of ${this.experiment.checkpoints.length}`],
      ["Environment", this.experiment.environment], ["Seed", isSame ? found[0].seed : "differs, or isn't known"]]);
  }

  showFacts(facts) {
    $("facts").replaceChildren(...facts.map(([name, value]) => element("div", {},
      element("dt", {}, name), element("dd", {}, value))));
  }

  async move(by) {
    const { episode } = this;
    const other = await this.grid.neighbour(episode, by);
    if (other && this.episode === episode) this.open(this.experiment, other);
  }

  onKey(event) {
    if (event.target.closest("select, input") || event.altKey || event.ctrlKey || event.metaKey) return;
    const ten = event.shiftKey ? 10 : 1;
    const actions = {
      " ": () => this.player?.toggle(),
      ArrowLeft: () => this.stepBy(-ten),
      ArrowRight: () => this.stepBy(ten),
      ArrowUp: () => this.move(-1),
      ArrowDown: () => this.move(1),
      Home: () => this.player?.seek(0),
      End: () => this.player?.seek(this.length - 1),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  stepBy(by) {
    if (!this.player) return;
    if (this.player.isPlaying) this.player.toggle();
    this.player.seek(Math.max(0, Math.min(this.length - 1, (this.player.step ?? 0) + by)));
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  leave() {
    this.player?.close();
    this.tracks.forEach((track) => track.close());
    Object.assign(this, { player: null, tracks: [], details: null, label: null });
    $("curves").replaceChildren();
    $("screen").replaceChildren();
  }

  closed() {
    const { episode } = this;
    this.leave();
    this.episode = null;
    this.onChange();
    if (episode) this.grid.focus(episode);
  }
}
