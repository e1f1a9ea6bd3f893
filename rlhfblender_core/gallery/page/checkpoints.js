// The chart of returns per checkpoint, whose columns choose the checkpoint.

const CHART = { height: 172, top: 14, bottom: 10 };

/** Draws the columns; calls back with the index of the one that is chosen. */
function drawCheckpoints(list, chosen, onChoose) {
  const shown = list.filter((checkpoint) => checkpoint.returns);
  const marks = !shown.length ? [] : roundMarks(
    Math.min(...shown.map((checkpoint) => checkpoint.returns[0])),
    Math.max(...shown.map((checkpoint) => checkpoint.returns[6])), 4);
  const [low, high] = [marks[0], marks.at(-1)];
  const y = (value) => between(CHART.height - CHART.bottom, CHART.top, share(low, high, value));
  const columns = list.map((checkpoint, index) => column(checkpoint, index, y, index === chosen, onChoose));
  const axis = element("div", { class: "axis", "aria-hidden": "true" });
  axis.append(...marks.map((value) => tick(value, y)));
  const strip = element("div", { class: "columns" }, ...columns);
  $("checkpoints").replaceChildren(axis, strip);
  drawMeanLine(strip, list, marks, y);
  new ResizeObserver(() => drawMeanLine(strip, list, marks, y)).observe(strip);
  columns[chosen]?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function tick(value, y) {
  const label = element("span", {}, formatNumber(value));
  label.style.top = `${y(value)}px`;
  return label;
}

function column(checkpoint, index, y, isChosen, onChoose) {
  const picture = svg("svg", { class: "box", width: 40, height: CHART.height, viewBox: `0 0 40 ${CHART.height}` });
  if (checkpoint.returns) {
    const [least, tenth, quarter, median, threeQuarters, nineTenths, most] = checkpoint.returns.map(y);
    picture.append(
      svg("line", { class: "extremes", x1: 20, x2: 20, y1: most, y2: least }),
      svg("rect", { class: "spread", x: 17, width: 6, rx: Math.min(3, (tenth - nineTenths) / 2), y: nineTenths,
        height: Math.max(1, tenth - nineTenths) }),
      svg("rect", { class: "middle", x: 7, width: 26, rx: Math.min(5, (quarter - threeQuarters) / 2 + 1),
        y: threeQuarters - 1, height: quarter - threeQuarters + 2 }),
      svg("line", { class: "median", x1: 8, x2: 32, y1: median, y2: median }),
      svg("circle", { class: "mean", cx: 20, cy: y(checkpoint.mean), r: 4.5 }),
    );
  }
  const made = element("button", {
    class: "column", type: "button", role: "tab", "aria-selected": isChosen, "data-label": checkpoint.label,
    title: `${checkpoint.label}: ${formatNumber(checkpoint.mean)} ± ${formatNumber(checkpoint.std)}`,
    tabindex: isChosen ? 0 : -1,
  }, picture, element("span", { class: "column-label" }, shortLabel(checkpoint.label)),
  element("span", { class: "column-mean" }, formatNumber(checkpoint.mean)));
  made.addEventListener("click", () => onChoose(index));
  made.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const other = move && made.parentElement.querySelectorAll(".column")[index + move];
    if (!other) return;
    event.preventDefault();
    other.click();
    $("checkpoints").querySelector("[aria-selected=true]").focus();
  });
  return made;
}

/** Lines at the axis' marks, and one through the means of checkpoints that follow each other in training. */
function drawMeanLine(strip, list, marks, y) {
  strip.querySelector(".mean-line")?.remove();
  const columns = strip.querySelectorAll(".column");
  const width = strip.scrollWidth;
  const points = list.flatMap((checkpoint, index) => (checkpoint.returns && checkpoint.step !== null
    ? [`${columns[index].offsetLeft + columns[index].offsetWidth / 2},${y(checkpoint.mean)}`] : []));
  const lines = marks.map((value) => svg("line", { x1: 0, x2: width, y1: y(value), y2: y(value) }));
  if (points.length > 1) lines.push(svg("polyline", { points: points.join(" ") }));
  strip.prepend(svg("svg", { class: "mean-line", width, height: CHART.height }, ...lines));
}
