// The learning curve: returns over the steps of training, at their true places. Boxes where there is room for them, else
// bands. Pointing at it tells figures; a click or the arrow keys choose the checkpoint.

const CHART = { height: 190, top: 12, bottom: 26, slot: 58, box: 26, least: 28 };
const NO_STEP_LABELS_FIRST = ["random"];

class LearningCurve {
  constructor(onChoose) {
    Object.assign(this, { onChoose, list: [], chosen: 0, pointed: null });
    this.root = $("chart");
    this.tip = element("div", { class: "tip", hidden: "" });
    new ResizeObserver(() => this.draw()).observe(this.root);
    this.root.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
    this.root.addEventListener("pointerleave", () => this.point(null));
    this.root.addEventListener("click", (event) => this.choose(this.nearest(event)));
    this.root.addEventListener("keydown", (event) => this.onKey(event));
  }

  show(list, chosen) {
    Object.assign(this, { list, chosen, pointed: null });
    this.draw();
  }

  onKey(event) {
    const last = this.list.length - 1;
    const to = { ArrowLeft: this.chosen - 1, ArrowRight: this.chosen + 1, Home: 0, End: last }[event.key];
    if (to === undefined || to < 0 || to > last) return;
    event.preventDefault();
    this.choose(to);
    this.point(to);
  }

  choose(index) {
    if (index !== null && index !== this.chosen) this.onChoose(index);
  }

  nearest(event) {
    const x = event.clientX - this.root.getBoundingClientRect().left;
    let best = null;
    for (const [index, place] of (this.places ?? []).entries()) {
      if (best === null || Math.abs(place - x) < Math.abs(this.places[best] - x)) best = index;
    }
    return best;
  }

  /** Where the checkpoints are, in pixels: by their step; those without one in slots of their own, at the ends. */
  arrange() {
    const { list } = this;
    const left = this.axis, right = this.width - 12;
    const stepped = list.filter(({ step }) => step !== null).map(({ step }) => step);
    if (!stepped.length) {
      const place = (index) => between(left, right, (index + 0.5) / list.length);
      Object.assign(this, { x: null, bounds: [left, right], places: list.map((_, index) => place(index)) });
      return;
    }
    const isFirst = ({ label, step }) => step === null && NO_STEP_LABELS_FIRST.includes(label);
    const before = list.filter(isFirst).length, after = list.length - before - stepped.length;
    const pad = stepped.length > 1 ? 16 : 0;
    const slot = Math.min(CHART.slot, (right - left) / (list.length + 1));
    const from = left + before * slot + pad, to = right - after * slot - pad;
    const [low, high] = [Math.min(...stepped), Math.max(...stepped)];
    let firsts = 0, lasts = 0;
    this.x = (step) => between(from, to, share(low, high, step));
    this.steps = [low, high];
    this.bounds = [before ? from - pad : left, after ? to + pad : right];
    this.places = list.map((checkpoint) => {
      if (checkpoint.step !== null) return this.x(checkpoint.step);
      return isFirst(checkpoint) ? left + (firsts++ + 0.5) * slot : right - (after - 0.5 - lasts++) * slot;
    });
  }

  draw() {
    this.width = this.root.clientWidth;
    if (!this.width || !this.list.length) return;
    const known = this.list.filter(({ returns }) => returns);
    const marks = !known.length ? [] : roundMarks(
      Math.min(...known.map(({ returns }) => returns[0])), Math.max(...known.map(({ returns }) => returns[6])), 5);
    this.axis = 14 + 7 * Math.max(3, ...marks.map((value) => formatNumber(value).length));
    this.y = (value) => between(CHART.height - CHART.bottom, CHART.top, share(marks[0], marks.at(-1), value));
    this.arrange();
    const sorted = [...this.places].sort((a, b) => a - b);
    const gap = Math.min(...sorted.slice(1).map((place, index) => place - sorted[index]), 60);
    this.isBanded = gap < CHART.least;
    this.boxWidth = Math.min(CHART.box, Math.max(8, gap - 8));
    this.root.dataset.mode = this.isBanded ? "bands" : "boxes";
    $("chart-key").textContent = this.isBanded ? "mean, quartiles, 10th to 90th percentile" : "mean (dot), median, quartiles, range";
    const picture = svg("svg", { width: this.width, height: CHART.height, "aria-hidden": "true" },
      ...this.grid(marks), ...this.stepLabels(gap), ...(this.isBanded ? this.bands() : this.boxes()));
    this.mark = svg("line", { class: "pointed", y1: CHART.top, y2: CHART.height - CHART.bottom });
    this.root.replaceChildren(picture, this.tip);
    picture.append(this.mark);
    this.point(this.pointed);
    this.describe();
  }

  describe() {
    const checkpoint = this.list[this.chosen];
    const attributes = { "aria-valuemin": 0, "aria-valuemax": this.list.length - 1, "aria-valuenow": this.chosen,
      "aria-valuetext": `${checkpoint.label}: mean return ${formatNumber(checkpoint.mean)}`, "data-label": checkpoint.label };
    setAttributes(this.root, attributes);
  }

  grid(marks) {
    return marks.flatMap((value) => [
      svg("line", { class: "rule", x1: this.axis, x2: this.width, y1: this.y(value), y2: this.y(value) }),
      svg("text", { x: this.axis - 10, y: this.y(value) + 4, "text-anchor": "end" }, formatNumber(value)),
    ]);
  }

  stepLabels(gap) {
    const y = CHART.height - 6;
    const label = (x, text, chosen) => svg("text", { x, y, "text-anchor": "middle", class: chosen ? "is-chosen" : null }, text);
    const short = this.list.map((checkpoint) => shortLabel(checkpoint.step === null ? checkpoint.label : String(checkpoint.step)));
    if (gap >= 8 + 7 * Math.max(...short.map((text) => text.length))) {
      return this.places.map((x, index) => label(x, short[index], index === this.chosen));
    }
    const room = (text) => (text.length > 8 ? `${text.slice(0, 7)}…` : text);
    const unstepped = this.list.flatMap(({ step }, index) => (step === null && this.x
      ? [label(this.places[index], room(short[index]), index === this.chosen)] : []));
    if (!this.x) return unstepped;
    const wanted = Math.max(4, Math.floor((this.bounds[1] - this.bounds[0]) / 90));
    const marks = roundMarks(...this.steps, wanted).filter((step) => step >= this.steps[0] && step <= this.steps[1]);
    return [...unstepped, ...marks.map((step) => label(this.x(step), shortLabel(String(step))))];
  }

  /** Runs through the checkpoints that follow each other in training, as a line or an area; those closer than two pixels as one. */
  line(value) {
    const points = new Map();
    for (const [index, checkpoint] of this.list.entries()) {
      if (!checkpoint.returns || checkpoint.step === null) continue;
      const at = Math.round(this.places[index] / 2);
      points.set(at, [...(points.get(at) ?? []), [this.places[index], this.y(value(checkpoint))]]);
    }
    const middle = (numbers) => (numbers.reduce((sum, one) => sum + one, 0) / numbers.length).toFixed(1);
    return [...points.values()].map((close) => `${middle(close.map(([x]) => x))},${middle(close.map(([, y]) => y))}`);
  }

  bands() {
    const area = (low, high, name) => svg("polygon", { class: name,
      points: [...this.line(({ returns }) => returns[low]), ...this.line(({ returns }) => returns[high]).reverse()].join(" ") });
    const line = this.line(({ mean }) => mean);
    const shapes = line.length > 1 ? [area(1, 5, "tenths"), area(2, 4, "quarters"), svg("polyline", { class: "means", points: line.join(" ") })] : [];
    const unstepped = this.list.flatMap(({ step }, index) => (step === null ? this.box(index) : []));
    const chosen = this.list[this.chosen];
    if (chosen.returns && chosen.step !== null) {
      const x = this.places[this.chosen];
      shapes.push(svg("line", { class: "chosen", x1: x, x2: x, y1: CHART.top, y2: CHART.height - CHART.bottom }),
        svg("circle", { class: "mean", cx: x, cy: this.y(chosen.mean), r: 5 }));
    }
    return [...shapes, ...unstepped];
  }

  boxes() {
    const line = this.line(({ mean }) => mean);
    return [svg("polyline", { class: "means faint", points: line.join(" ") }), ...this.list.flatMap((_, index) => this.box(index))];
  }

  box(index) {
    const { returns, mean } = this.list[index];
    const x = this.places[index], width = this.boxWidth, isChosen = index === this.chosen;
    const ground = isChosen ? [svg("rect", { class: "ground", x: x - Math.max(16, width / 2 + 6), width: Math.max(32, width + 12), rx: 8,
      y: CHART.top - 8, height: CHART.height - CHART.bottom - CHART.top + 16 })] : [];
    if (!returns) return ground;
    const [least, , quarter, median, threeQuarters, , most] = returns.map((value) => this.y(value));
    return [...ground, svg("g", { class: isChosen ? "box is-chosen" : "box" },
      svg("line", { class: "extremes", x1: x, x2: x, y1: most, y2: least }),
      svg("rect", { class: "middle", x: x - width / 2, width, rx: Math.min(4, (quarter - threeQuarters) / 2 + 1),
        y: threeQuarters - 1, height: quarter - threeQuarters + 2 }),
      svg("line", { class: "median", x1: x - width / 2 + 1, x2: x + width / 2 - 1, y1: median, y2: median }),
      svg("circle", { class: "mean", cx: x, cy: this.y(mean), r: 4.5 }))];
  }

  /** Tells the figures of a checkpoint; null for none. */
  point(index) {
    this.pointed = index;
    this.tip.hidden = index === null;
    this.mark?.setAttribute("visibility", index === null ? "hidden" : "visible");
    if (index === null) return;
    const checkpoint = this.list[index], x = this.places[index];
    setAttributes(this.mark, { x1: x, x2: x });
    const [least, , quarter, median, threeQuarters, , most] = (checkpoint.returns ?? Array(7).fill(null)).map(formatNumber);
    const figures = [
      ["mean", `${formatNumber(checkpoint.mean)} ± ${formatNumber(checkpoint.std)}`], ["median", median],
      ["quartiles", `${quarter} to ${threeQuarters}`], ["range", `${least} to ${most}`],
      ["length", `${formatNumber(checkpoint.lengths[1])} steps`], ["episodes", checkpoint.episodes.toLocaleString("en")]];
    this.tip.replaceChildren(element("strong", {}, checkpointTitle(checkpoint)),
      element("dl", {}, ...figures.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])));
    const width = this.tip.offsetWidth;
    this.tip.style.left = `${x + 14 + width > this.width ? Math.max(0, x - 14 - width) : x + 14}px`;
  }
}

/** A checkpoint as a heading: its label, and its step where that isn't the label. */
function checkpointTitle({ label, step }) {
  if (step === null) return label;
  const steps = `step ${step.toLocaleString("en")}`;
  return String(step) === label ? steps : `${label} · ${steps}`;
}
