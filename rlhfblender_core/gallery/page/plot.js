// Curves and a strip over the steps of an episode, with a cursor; pressing or dragging on them seeks, pointing reads.

const PLOT_HEIGHT = 76, STRIP_HEIGHT = 26, COLOURS = 8;
/** Pixels to each side over which several dense curves are averaged: they would hide each other. */
const SMOOTH = 4;

/** What every picture over the steps has: a heading with readings, a cursor, and the pointer. */
class Track {
  /**
   * @param title heading
   * @param names of what is read, one per reading
   * @param length steps of the episode
   * @param colour of the first reading, from 0; the others take the next ones
   * @param colours of the readings, where they have their own
   */
  constructor({ title, names, length, height, colour = 0, colours = null, tools = [], onSeek }) {
    Object.assign(this, { names, length, height, cursorStep: 0, pointedStep: null });
    this.styles = names.map((_, index) => `--curve: ${colours?.[index] ?? `var(--c${(colour + index) % COLOURS})`}`);
    this.readings = names.map((name, index) => element("output", { class: "reading", "data-name": name, style: this.styles[index] }));
    this.picture = svg("svg", { class: "plot-picture", height, role: "img", "aria-label": title });
    this.cursor = element("div", { class: "cursor", "data-step": 0 });
    this.pointer = element("div", { class: "cursor is-pointer", hidden: "" });
    this.axis = element("div", { class: "plot-axis", "aria-hidden": "true", style: `height: ${height}px` });
    this.area = element("div", { class: "plot-area", style: `height: ${height}px` }, this.picture, this.pointer, this.cursor);
    const legend = element("span", { class: "readings" }, ...this.readings.map((reading, index) =>
      element("span", { class: "legend", style: this.styles[index] },
        ...(names.length > 1 ? [element("i"), element("span", {}, names[index])] : []), reading)));
    this.root = element("section", { class: "plot" },
      element("header", {}, element("h3", {}, title), ...tools, legend),
      element("div", { class: "plot-row" }, this.axis, this.area));
    this.watchPointer(onSeek);
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.area);
  }

  close() {
    this.watcher.disconnect();
  }

  watchPointer(onSeek) {
    const step = (event) => {
      const box = this.area.getBoundingClientRect();
      const at = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      return Math.min(this.length - 1, Math.floor(at * this.length));
    };
    this.area.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.area.setPointerCapture(event.pointerId);
      onSeek(step(event));
    });
    this.area.addEventListener("pointermove", (event) => {
      if (this.area.hasPointerCapture(event.pointerId)) onSeek(step(event));
      else this.pointAt(step(event));
    });
    this.area.addEventListener("pointerleave", () => this.pointAt(null));
  }

  /** The middle of a step's share of the width, in pixels. */
  x(step) {
    return ((step + 0.5) / this.length) * this.width;
  }

  draw() {
    this.width = this.area.clientWidth;
    if (!this.width) return;
    this.picture.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.paint();
    this.moveTo(this.cursorStep);
  }

  moveTo(step) {
    this.cursorStep = step;
    this.cursor.dataset.step = step;
    this.cursor.style.transform = `translateX(${this.x(step) || 0}px)`;
    if (this.pointedStep === null) this.read(step);
  }

  pointAt(step) {
    this.pointedStep = step;
    this.pointer.hidden = step === null;
    this.root.classList.toggle("is-pointed", step !== null);
    if (step !== null) this.pointer.style.transform = `translateX(${this.x(step) || 0}px)`;
    this.read(step ?? this.cursorStep);
  }

  read(step) {
    for (const [index, reading] of this.readings.entries()) reading.textContent = this.reading(index, step);
  }
}

/** One curve or several. */
class Plot extends Track {
  /** @param series {name, values, band}: a value per step, fewer where a curve ends earlier; a band is lowest and highest values */
  constructor({ series, bounds = null, ...options }) {
    super({ height: PLOT_HEIGHT, names: series.map(({ name }) => name), ...options });
    Object.assign(this, { series, bounds });
  }

  show(values) {
    this.series = [{ ...this.series[0], values }];
    this.draw();
  }

  y(value) {
    return between(this.height - 7, 7, share(this.low, this.high, value));
  }

  reading(index, step) {
    const { values } = this.series[index];
    return formatNumber(values[Math.min(step, values.length - 1)]);
  }

  paint() {
    const ranges = this.series.flatMap(({ values, band }) => [values, ...(band ?? [])].map(range)).filter(([low, high]) => low <= high);
    [this.low, this.high] = this.bounds ?? [Math.min(...ranges.map(([low]) => low)), Math.max(...ranges.map(([, high]) => high))];
    if (!ranges.length) [this.low, this.high] = [0, 0];
    const shapes = [];
    if (this.low < 0 && this.high > 0) {
      shapes.push(svg("line", { class: "zero", x1: 0, x2: this.width, y1: this.y(0), y2: this.y(0) }));
    }
    // One curve is filled from zero where it reaches it, else from below.
    const floor = this.low <= 0 && this.high >= 0 && this.high > this.low ? this.y(0) : this.height;
    const faint = Math.min(0.24, 0.8 / this.series.length).toFixed(2);
    for (const [index, { values, band }] of this.series.entries()) {
      const style = this.styles[index];
      if (band) shapes.push(this.band(band, style));
      for (const run of this.runs(values)) {
        const line = pointsOf(run);
        if (run.length === 1) { // a line of one point isn't seen
          shapes.push(svg("circle", { style, cx: run[0][0], cy: run[0][1], r: 3 }));
          continue;
        }
        if (this.series.length === 1 && !band) {
          shapes.push(svg("polygon", { style, points: `${run[0][0].toFixed(1)},${floor} ${line} ${run.at(-1)[0].toFixed(1)},${floor}` }));
        }
        shapes.push(svg("polyline", { style: this.isDense ? `${style}; opacity: ${faint}` : style, points: line }));
      }
    }
    shapes.push(...(this.isDense ? this.means() : []), ...this.ends());
    this.picture.replaceChildren(...shapes);
    const ticks = this.high > this.low ? [this.high, this.low] : [this.high];
    this.axis.replaceChildren(...ticks.map((value) => {
      const label = element("span", {}, formatNumber(value, 2));
      label.style.top = `${this.y(value)}px`;
      return label;
    }));
  }

  /** Whether there are several curves of so many steps that they hide each other. */
  get isDense() {
    return this.series.length > 1 && this.length > this.width / 3;
  }

  means() {
    const half = Math.round((SMOOTH * this.length) / this.width);
    return this.series.flatMap(({ values }, index) => this.runs(smoothed(smoothed(values, half), half)).map((run) =>
      svg("polyline", { style: this.styles[index], points: pointsOf(run) })));
  }

  /** A dot where a curve ends before the others. */
  ends() {
    return this.series.flatMap(({ values }, index) => {
      const last = values.length - 1;
      return last < this.length - 1 && Number.isFinite(values[last])
        ? [svg("circle", { style: this.styles[index], cx: this.x(last), cy: this.y(values[last]), r: 3.2 })] : [];
    });
  }

  band([low, high], style) {
    return svg("polygon", { style, points: pointsOf([...this.runs(low).flat(), ...this.runs(high).flat().reverse()]) });
  }

  /** Runs of points without gaps; of the many points of one pixel the lowest and the highest. */
  runs(values) {
    const runs = [];
    let run = [];
    const perPixel = Math.max(1, Math.floor(values.length / this.width));
    for (let start = 0; start < values.length; start += perPixel) {
      let least = Infinity, most = -Infinity;
      for (let index = start; index < Math.min(start + perPixel, values.length); index += 1) {
        const value = values[index];
        if (Number.isFinite(value)) [least, most] = [Math.min(least, value), Math.max(most, value)];
      }
      if (least > most) {
        if (run.length) runs.push(run);
        run = [];
        continue;
      }
      const x = this.x(start + (perPixel - 1) / 2);
      run.push([x, this.y(least)]);
      if (most > least) run.push([x, this.y(most)]);
    }
    if (run.length) runs.push(run);
    return runs;
  }
}

/** What was done at each step, as colours; for actions that are numbers of a list. */
class Strip extends Track {
  /** @param values a number per step; @param text what one is called */
  constructor({ values, text, ...options }) {
    super({ height: STRIP_HEIGHT, names: [options.title], ...options });
    Object.assign(this, { values, text });
  }

  reading(_, step) {
    this.readings[0].style.setProperty("--curve", colourOf(this.values[step]));
    return this.text(this.values[step]);
  }

  paint() {
    const shapes = [];
    const least = 1 / this.width;
    for (let start = 0, end = 1; start < this.length; start = end, end += 1) {
      while (end < this.length && (this.values[end] === this.values[start] || (end - start) / this.length < least)) end += 1;
      shapes.push(svg("rect", { style: `fill: ${colourOf(this.values[start])}`, y: 0, height: this.height,
        x: ((start / this.length) * this.width).toFixed(2), width: (((end - start) / this.length) * this.width).toFixed(2) }));
    }
    this.picture.replaceChildren(...shapes);
  }
}

/** The colour of a choice, which may be less than zero. */
const colourOf = (choice) => `var(--c${((choice % COLOURS) + COLOURS) % COLOURS})`;

const pointsOf = (run) => run.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

/** The running mean of the finite values around each, as many before it as after it; NaN where there are none. */
function smoothed(values, half) {
  const sums = [0], counts = [0];
  for (const value of values) {
    const isKnown = Number.isFinite(value);
    sums.push(sums.at(-1) + (isKnown ? value : 0));
    counts.push(counts.at(-1) + (isKnown ? 1 : 0));
  }
  return Float64Array.from(values, (value, step) => {
    const side = Math.min(half, step, values.length - 1 - step), from = step - side, to = step + side + 1;
    return Number.isFinite(value) ? (sums[to] - sums[from]) / (counts[to] - counts[from]) : NaN;
  });
}

/** Lowest and highest finite value. */
function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}
