// One episode across checkpoints, side by side, playing in step: same number, same seed, same start.

/** Seconds that a picture may be off before it is set right. */
const DRIFT = 0.08;

/** As many of the list as wanted, evenly, with the first, the last, and the one that is given. */
function spread(list, wanted, kept) {
  if (list.length <= wanted) return list;
  const indices = new Set(Array.from({ length: wanted }, (_, index) => Math.round((index * (list.length - 1)) / (wanted - 1))));
  const at = list.indexOf(kept);
  if (!indices.has(at)) {
    const inner = [...indices].slice(1, -1);
    const nearest = inner.sort((a, b) => Math.abs(a - at) - Math.abs(b - at))[0];
    indices.delete(nearest);
    indices.add(at);
  }
  return [...indices].sort((a, b) => a - b).map((index) => list[index]);
}

/** The episodes of one number, of some checkpoints in the order of training. */
async function loadAcross(experiment, checkpoint, number, wanted) {
  const chosen = spread(experiment.checkpoints, wanted, checkpoint);
  const found = await Promise.all(chosen.map((one) => findEpisode(one, number).catch(() => undefined)));
  return found.filter(Boolean);
}

/** Plays several episodes by one clock; a step of it is a step of each. Those that end earlier stay at their last picture. */
class TogetherPlayer extends ClockPlayer {
  constructor(episodes, onStep, onOpen) {
    super({ length: Math.max(...episodes.map(({ length }) => length)), fps: episodes.find(({ fps }) => fps)?.fps }, onStep);
    const colours = trainingColours(episodes);
    this.tiles = episodes.map((episode, index) => this.tile(episode, colours[index], onOpen));
    this.root = element("div", { class: episodes.length > 4 ? "tiles is-many" : "tiles" }, ...this.tiles.map(({ root }) => root));
    const columns = { 1: 1, 2: 2, 3: 3, 4: 2 }[episodes.length] ?? (episodes.length <= 9 ? 3 : 4);
    this.root.style.setProperty("--tiles", columns);
    this.root.style.setProperty("--rows", Math.ceil(episodes.length / columns));
  }

  tile(episode, colour, onOpen) {
    const { checkpoint } = episode;
    const video = episode.video ? element("video", { src: episode.video, preload: "auto", playsinline: "" }) : null;
    if (video) video.muted = true;
    const ending = element("span", { class: "tile-end" });
    const root = element("button", { class: "tile", type: "button", "data-label": checkpoint.label, title: "Open this episode" },
      element("span", { class: "tile-picture", style: `aspect-ratio: ${checkpoint.width || 3} / ${checkpoint.height || 2}` }, video ?? element("span", { class: "bare-text" }, "no video"), ending),
      element("span", { class: "tile-text" }, element("strong", {}, element("i", { style: `--curve: ${colour}` }), checkpointTitle(checkpoint)),
        element("span", {}, `${formatNumber(episode.return)} · ${plural(episode.length, "step")}`)));
    root.addEventListener("click", () => onOpen(episode));
    const made = { root, video, episode, ending };
    // Where it was sought to may not be where the clock has got to, and after its end nothing else would tell.
    for (const name of ["seeked", "loadeddata"]) video?.addEventListener(name, () => this.follow(made));
    return made;
  }

  tick() {
    // What is still loading holds all of them up: in step is what this is for.
    if (this.isPlaying && this.tiles.some((tile) => this.isLate(tile))) this.restart();
    super.tick();
  }

  isLate({ video, episode }) {
    if (!video || video.error || this.step >= episode.length - 1) return false;
    return video.readyState < 2 || video.seeking || Math.abs(video.currentTime - this.step / (episode.fps || this.fps)) > 0.4 * this.speed;
  }

  say(step) {
    this.step = step;
    for (const tile of this.tiles) this.follow(tile);
    super.say(step);
  }

  /** Brings a picture to the step. */
  follow({ root, video, episode, ending }) {
    const isOver = this.step >= episode.length - 1;
    root.dataset.step = Math.min(this.step, episode.length - 1);
    ending.textContent = isOver ? { terminated: "ended", truncated: "cut off", open: "over" }[episode.ended] : "";
    if (!video || video.error) return;
    const fps = episode.fps || this.fps;
    const target = (Math.min(this.step, episode.length - 1) + 0.5) / fps;
    const isRunning = this.isPlaying && !isOver;
    if (isRunning === video.paused) isRunning ? video.play().catch(() => {}) : video.pause();
    const rate = (this.speed * this.fps) / fps;
    if (video.playbackRate !== rate) video.playbackRate = rate;
    const allowed = isRunning ? Math.max(DRIFT * rate, 1.5 / fps) : 0.4 / fps;
    if (!video.seeking && Math.abs(video.currentTime - target) > allowed) video.currentTime = target;
  }

  close() {
    super.close();
    for (const { video } of this.tiles) {
      if (!video) continue;
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
  }
}

/** A colour for each, from the first checkpoint to the last; what isn't trained is grey. */
function trainingColours(episodes) {
  const last = Math.max(1, episodes.length - 1);
  return episodes.map(({ checkpoint }, index) => (NO_STEP_LABELS_FIRST.includes(checkpoint.label) ? "var(--muted)"
    : `color-mix(in oklch, var(--c0) ${Math.round((index / last) * 100)}%, var(--c1))`));
}

/** The returns so far of several episodes in one picture, and their uncertainties in another. */
async function togetherTracks(episodes, length, onSeek) {
  const arrays = await Promise.all(episodes.map(loadArrays)), colours = trainingColours(episodes);
  const track = (name, title) => {
    const shown = episodes.map((_, index) => index).filter((index) => arrays[index].get(name)?.values.some(Number.isFinite));
    const series = shown.map((index) => ({ name: shortLabel(episodes[index].checkpoint.label),
      values: Float64Array.from(arrays[index].get(name).values) }));
    return series.length ? [new Plot({ title, series, length, onSeek, height: 150, colours: shown.map((index) => colours[index]) })] : [];
  };
  return [...track("rewards", "Return so far"), ...track("uncertainty", "Uncertainty")];
}
