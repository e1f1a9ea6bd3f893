// A curve over the steps of an episode, with a cursor; pressing or dragging on it seeks.

const CURVE_HEIGHT = 84;

class Curve {
  /**
   * @param kind "reward" or "uncertainty", for its colour
   * @param values one per point
   * @param stride steps to a point
   * @param length steps of the episode
   */
  constructor({ kind, title, values, stride, length, tools = [], onSeek }) {
    Object.assign(this, { values, stride, length, cursorStep: 0 });
    this.reading = element("output", { class: "curve-value" });
    this.picture = svg("svg", { class: "curve-picture", height: CURVE_HEIGHT, role: "img", "aria-label": title });
    this.cursor = element("div", { class: "cursor", "data-step": 0 }, element("span", { class: "cursor-dot" }));
    this.axis = element("div", { class: "curve-axis", "aria-hidden": "true" });
    this.area = element("div", { class: "curve-area" }, this.picture, this.cursor);
    this.root = element("section", { class: `curve curve-${kind}` },
      element("header", {}, element("h3", {}, title), ...tools, this.reading),
      element("div", { class: "curve-row" }, this.axis, this.area));
    this.watchPointer(onSeek);
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.area);
  }

  show(values) {
    this.values = values;
    this.draw();
  }

  close() {
    this.watcher.disconnect();
  }

  watchPointer(onSeek) {
    const seek = (event) => {
      const box = this.area.getBoundingClientRect();
      const at = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      onSeek(Math.min(this.length - 1, Math.floor(at * this.length)));
    };
    this.area.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.area.setPointerCapture(event.pointerId);
      seek(event);
    });
    this.area.addEventListener("pointermove", (event) => {
      if (this.area.hasPointerCapture(event.pointerId)) seek(event);
    });
  }

  /** The middle of a step's share of the width, in pixels. */
  x(step) {
    return ((step + 0.5) / this.length) * this.width;
  }

  y(value) {
    return between(CURVE_HEIGHT - 8, 8, share(this.low, this.high, value));
  }

  draw() {
    this.width = this.area.clientWidth;
    if (!this.width) return;
    [this.low, this.high] = range(this.values);
    const shapes = [];
    if (this.low < 0 && this.high > 0) {
      shapes.push(svg("line", { class: "zero", x1: 0, x2: this.width, y1: this.y(0), y2: this.y(0) }));
    }
    // Filled from zero where the curve reaches it, else from below.
    const floor = this.low <= 0 && this.high >= 0 && this.high > this.low ? this.y(0) : CURVE_HEIGHT;
    for (const run of this.runs()) {
      const line = run.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");
      shapes.push(
        svg("polygon", { points: `${run[0][0].toFixed(1)},${floor} ${line} ${run.at(-1)[0].toFixed(1)},${floor}` }),
        svg("polyline", { points: line }));
    }
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${CURVE_HEIGHT}`);
    this.picture.replaceChildren(...shapes);
    const ticks = this.high > this.low ? [this.high, this.low] : [this.high];
    this.axis.replaceChildren(...ticks.map((value) => {
      const label = element("span", {}, formatNumber(value));
      label.style.top = `${this.y(value)}px`;
      return label;
    }));
    this.moveTo(this.cursorStep);
  }

  /** Runs of points without gaps; of the many points of one pixel the lowest and the highest. */
  runs() {
    const runs = [];
    let run = [];
    const perPixel = Math.max(1, Math.floor(this.values.length / this.width));
    for (let start = 0; start < this.values.length; start += perPixel) {
      let least = Infinity, most = -Infinity;
      for (let index = start; index < Math.min(start + perPixel, this.values.length); index += 1) {
        const value = this.values[index];
        if (Number.isFinite(value)) [least, most] = [Math.min(least, value), Math.max(most, value)];
      }
      if (least > most) {
        if (run.length) runs.push(run);
        run = [];
        continue;
      }
      const x = this.x((start + (perPixel - 1) / 2) * this.stride);
      run.push([x, this.y(least)]);
      if (most > least) run.push([x, this.y(most)]);
    }
    if (run.length) runs.push(run);
    return runs;
  }

  moveTo(step) {
    this.cursorStep = step;
    const value = this.values[Math.floor(step / this.stride)];
    this.cursor.dataset.step = step;
    this.cursor.style.transform = `translateX(${this.x(step) || 0}px)`;
    this.cursor.firstChild.style.top = Number.isFinite(value) ? `${this.y(value)}px` : "-99px";
    this.reading.textContent = formatNumber(value);
  }
}

/** Lowest and highest finite value; a flat curve gets room below and above. */
function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low > high ? [0, 0] : [low, high];
}
