// Which experiment, checkpoint and episodes are shown: kept here and in the address, so that a view can be linked to.

const state = { experiment: null, checkpoint: null };
const BOUNDS = ["return-min", "return-max", "length-min", "length-max"];

const grid = new Grid((episode) => viewer.open(state.experiment, episode));
const viewer = new Viewer(grid, () => writeAddress(), (checkpoint) =>
  chooseCheckpoint(state.experiment.checkpoints.indexOf(checkpoint)));
const curve = new LearningCurve((index) => chooseCheckpoint(index));

async function chooseExperiment(experiment, label) {
  state.experiment = experiment;
  const { checkpoints } = experiment;
  $("experiment").value = experiment.name;
  $("experiment-name").textContent = experiment.name;
  const episodes = checkpoints.reduce((sum, checkpoint) => sum + checkpoint.episodes, 0);
  $("experiment-facts").textContent = [
    experiment.environment, plural(checkpoints.length, "checkpoint"), plural(episodes, "episode")].join(" · ");
  $("checkpoint").replaceChildren(...checkpoints.map(({ label: name }, index) => element("option", { value: index }, name)));
  $("checkpoint-field").hidden = checkpoints.length < 2;
  const index = checkpoints.findIndex((checkpoint) => checkpoint.label === label);
  await chooseCheckpoint(index >= 0 ? index : checkpoints.length - 1);
}

async function chooseCheckpoint(index) {
  const checkpoint = state.experiment.checkpoints[index];
  state.checkpoint = checkpoint;
  $("checkpoint").value = String(index);
  curve.show(state.experiment.checkpoints, index);
  $("chart-reading").textContent = `${checkpointTitle(checkpoint)}: ${formatNumber(checkpoint.mean)} ± ${formatNumber(checkpoint.std)}`
    + ` over ${plural(checkpoint.episodes, "episode")} · `;
  showRanges();
  await showEpisodes();
}

/** Tells the filters' inputs which values there are. */
function showRanges() {
  const { returns, lengths } = state.checkpoint;
  const shown = { "return-min": returns?.[0], "return-max": returns?.[6], "length-min": lengths[0], "length-max": lengths[2] };
  for (const id of BOUNDS) $(id).placeholder = formatNumber(shown[id]);
}

const isFiltered = () => $("ended").value !== "" || BOUNDS.some((id) => $(id).value !== "");

async function showEpisodes() {
  const { checkpoint } = state;
  writeAddress();
  const all = checkpoint.episodes;
  const isPlain = !isFiltered() && $("sort").value === "n:1";
  $("reset").hidden = isPlain;
  let list = new LazyEpisodes(checkpoint);
  if (!isPlain) {
    $("count").textContent = "loading …";
    const asked = location.hash;
    try {
      list = new ListedEpisodes(chosen(await loadAll(checkpoint)));
    } catch (error) {
      list = new ListedEpisodes([]);
      $("empty").textContent = error.message;
    }
    if (state.checkpoint !== checkpoint || location.hash.split("?")[1] !== asked.split("?")[1]) return; // something else was asked meanwhile
  }
  $("count").textContent = list.length === all ? plural(all, "episode")
    : `${list.length.toLocaleString("en")} of ${plural(all, "episode")}`;
  grid.show(list, checkpoint);
}

/** The episodes that fit the filters, sorted. */
function chosen(episodes) {
  const bound = (id, otherwise) => ($(id).value === "" ? otherwise : Number($(id).value));
  const fits = (name, value) => {
    const [low, high] = [bound(`${name}-min`, -Infinity), bound(`${name}-max`, Infinity)];
    return value === null ? low === -Infinity && high === Infinity : value >= low && value <= high;
  };
  const ended = $("ended").value;
  const [key, direction] = $("sort").value.split(":");
  const shown = episodes.filter((episode) => fits("return", episode.return) && fits("length", episode.length)
    && (!ended || episode.ended === ended));
  const rank = (episode) => (episode[key] === null ? Infinity : direction * episode[key]);
  return shown.sort((a, b) => (rank(a) === rank(b) ? a.n - b.n : rank(a) - rank(b)));
}

/** What the address says of sorting, filters, and the viewer. */
function query() {
  const parts = new URLSearchParams();
  if ($("sort").value !== "n:1") parts.set("sort", $("sort").value);
  for (const id of [...BOUNDS, "ended"]) if ($(id).value !== "") parts.set(id, $(id).value);
  if (viewer.episode && viewer.across) parts.set("across", viewer.across);
  for (const [kind, names] of Object.entries(viewer.chosen)) if (viewer.episode) names.forEach((name) => parts.append(kind, name));
  return parts.size ? `?${parts}` : "";
}

function writeAddress() {
  const { episode } = viewer;
  const label = episode ? episode.checkpoint.label : state.checkpoint.label;
  const parts = [state.experiment.name, label, ...(episode ? [String(episode.n)] : [])];
  const address = `#/${parts.map(encodeURIComponent).join("/")}${query()}`;
  const isOpened = episode && readAddress().parts.length < parts.length && location.hash; // so that Back closes it
  if (address === location.hash) return;
  try {
    history[isOpened ? "pushState" : "replaceState"](null, "", address);
  } catch { /* too many changes at once for the browser: the address lags behind */ }
}

function readAddress() {
  const [path, ...rest] = location.hash.slice(2).split("?");
  try {
    return { parts: path.split("/").map(decodeURIComponent), settings: new URLSearchParams(rest.join("?")) };
  } catch {
    return { parts: [], settings: new URLSearchParams() };
  }
}

/** Sets sorting and filters as the address says; whether that changes anything. */
function readSettings(settings) {
  const before = query();
  for (const id of ["sort", "ended", ...BOUNDS]) {
    const value = settings.get(id) ?? (id === "sort" ? "n:1" : "");
    $(id).value = value;
    if ($(id).value !== value) $(id).value = id === "sort" ? "n:1" : ""; // no such choice
  }
  const across = Number(settings.get("across") ?? 0);
  viewer.across = [...$("across").options].some(({ value }) => Number(value) === across) ? across : 0;
  for (const kind of Object.keys(KINDS)) if (settings.has(kind)) viewer.chosen[kind] = settings.getAll(kind);
  return before !== query();
}

async function goToAddress() {
  const { parts: [name, label, number], settings } = readAddress();
  const experiment = experiments.find((shown) => shown.name === name) ?? experiments[0];
  const isChanged = readSettings(settings);
  // Back from an episode leads to the grid as it was.
  if (experiment !== state.experiment || (label ?? "") !== state.checkpoint.label) await chooseExperiment(experiment, label);
  else if (isChanged) await showEpisodes();
  const episode = number ? await findEpisode(state.checkpoint, Number(number)).catch(() => undefined) : undefined;
  if (!episode) {
    viewer.close();
    return;
  }
  viewer.open(state.experiment, episode);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("rlhfblender-gallery-theme", theme);
  } catch { /* not remembered where pages may store nothing */ }
}

function start() {
  try {
    const theme = localStorage.getItem("rlhfblender-gallery-theme");
    if (theme) setTheme(theme);
  } catch { /* as above */ }
  $("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme
      || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    setTheme(now === "dark" ? "light" : "dark");
  });
  $("notes").hidden = !notes.length;
  $("notes").append(...notes.map((note) => element("li", {}, note)));
  $("experiment").append(...experiments.map(({ name }) => element("option", { value: name }, name)));
  $("experiment-field").hidden = experiments.length < 2;
  $("experiment").addEventListener("change", () =>
    chooseExperiment(experiments.find(({ name }) => name === $("experiment").value)));
  $("checkpoint").addEventListener("change", (event) => {
    event.stopPropagation();
    chooseCheckpoint(Number($("checkpoint").value));
  });
  $("filters").addEventListener("input", (event) => {
    if (event.target !== $("checkpoint")) showEpisodes();
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(() => {
    $("checkpoint").value = String(state.experiment.checkpoints.indexOf(state.checkpoint));
    showEpisodes();
  }));
  addEventListener("popstate", goToAddress);
  goToAddress();
}

start();
