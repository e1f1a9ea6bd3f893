// What moves through the steps of an episode: its video, or a clock where there is none.

/** Plays the video; frame t shows step t. */
class VideoPlayer {
  constructor(episode, onStep, onFailure) {
    Object.assign(this, { episode, onStep });
    this.root = element("video", { src: episode.video, preload: "auto", playsinline: "" });
    this.root.muted = true;
    for (const name of ["play", "pause", "ended"]) this.root.addEventListener(name, () => this.tell());
    this.root.addEventListener("seeked", () => this.tell());
    this.root.addEventListener("error", onFailure, { once: true });
    this.root.addEventListener("click", () => this.toggle());
    this.follow();
  }

  get isPlaying() {
    return !this.root.paused && !this.root.ended;
  }

  get fps() {
    return this.episode.fps || this.episode.length / this.root.duration || 30;
  }

  follow() {
    if (!this.root.requestVideoFrameCallback) {
      this.frame = requestAnimationFrame(() => { this.tell(); this.follow(); });
      return;
    }
    this.frame = this.root.requestVideoFrameCallback((_, { mediaTime }) => {
      // Frames begin at whole steps, give or take the container's rounding; after seeking, Firefox says where to instead.
      if (!this.root.seeking) this.say(Math.floor(mediaTime * this.fps + 0.25));
      this.follow();
    });
  }

  tell() {
    if (!this.root.seeking) this.say(this.root.ended ? this.episode.length : Math.floor(this.root.currentTime * this.fps + 0.01));
  }

  say(step) {
    this.step = Math.max(0, Math.min(this.episode.length - 1, step));
    this.onStep(this.step, this.isPlaying);
  }

  seek(step) {
    // The middle of the frame, so that rounding never shows its neighbour.
    this.root.currentTime = (step + 0.5) / this.fps;
    this.say(step);
  }

  setSpeed(speed) {
    this.root.playbackRate = speed;
  }

  play() {
    this.root.play().catch(() => {}); // refused or closed: the play button shows it
  }

  toggle() {
    if (this.isPlaying) this.root.pause();
    else this.play();
  }

  close() {
    this.root.pause();
    this.root.removeAttribute("src");
    this.root.load();
  }
}

/** Moves through the steps by a clock, at the pace of the videos. */
class ClockPlayer {
  constructor({ length, fps }, onStep, root) {
    Object.assign(this, { length, fps: fps || 30, onStep, root, step: 0, isPlaying: false, speed: 1 });
  }

  play() {
    if (this.step >= this.length - 1) this.step = 0;
    this.isPlaying = true;
    this.restart();
    this.tick();
  }

  restart() {
    this.start = { time: performance.now(), step: this.step };
  }

  tick() {
    if (!this.isPlaying) return;
    const passed = ((performance.now() - this.start.time) / 1000) * this.fps * this.speed;
    const step = Math.min(this.length - 1, this.start.step + Math.floor(passed));
    this.isPlaying = step < this.length - 1;
    this.say(step);
    if (this.isPlaying) requestAnimationFrame(() => this.tick());
  }

  say(step) {
    this.step = step;
    this.onStep(step, this.isPlaying);
  }

  seek(step) {
    this.step = step;
    this.restart();
    this.say(step);
  }

  setSpeed(speed) {
    this.restart();
    this.speed = speed;
  }

  toggle() {
    if (!this.isPlaying) return this.play();
    this.isPlaying = false;
    return this.say(this.step);
  }

  close() {
    this.isPlaying = false;
  }
}
