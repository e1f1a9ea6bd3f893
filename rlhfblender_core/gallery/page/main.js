// Which experiment, checkpoint and episodes are shown: kept here and in the address, so that a view can be linked to.

const state = { experiment: null, checkpoint: null, episodes: [] };
const FILTERS = ["return-min", "return-max", "length-min", "length-max"];

const grid = new Grid((episode) => viewer.open(state.experiment, state.checkpoint, episode));
const viewer = new Viewer(grid, writeAddress);

async function chooseExperiment(experiment, label) {
  state.experiment = experiment;
  const { checkpoints } = experiment;
  $("experiment").value = experiment.name;
  $("experiment-name").textContent = experiment.name;
  const episodes = checkpoints.reduce((sum, checkpoint) => sum + checkpoint.episodes, 0);
  $("experiment-facts").textContent = [
    experiment.environment, plural(checkpoints.length, "checkpoint"), plural(episodes, "episode")].join(" · ");
  const index = checkpoints.findIndex((checkpoint) => checkpoint.label === label);
  await chooseCheckpoint(index >= 0 ? index : checkpoints.length - 1);
}

async function chooseCheckpoint(index) {
  const checkpoint = state.experiment.checkpoints[index];
  state.checkpoint = checkpoint;
  drawCheckpoints(state.experiment.checkpoints, index, chooseCheckpoint);
  $("chart-reading").textContent = `${checkpoint.label}: ${formatNumber(checkpoint.mean)} ± ${formatNumber(checkpoint.std)}`
    + ` over ${plural(checkpoint.episodes, "episode")}, ${formatNumber(checkpoint.meanLength)} steps on average`;
  writeAddress(null);
  let loaded;
  try {
    loaded = await loadEpisodes(checkpoint);
  } catch (error) {
    loaded = { episodes: [] };
    $("empty").textContent = error.message;
  }
  if (state.checkpoint !== checkpoint) return; // another one was chosen meanwhile
  state.episodes = loaded.episodes;
  showRanges();
  showEpisodes();
}

/** Tells the filters' inputs which values there are. */
function showRanges() {
  for (const name of ["return", "length"]) {
    const [low, high] = range(state.episodes.map((episode) => episode[name] ?? NaN));
    $(`${name}-min`).placeholder = formatNumber(low);
    $(`${name}-max`).placeholder = formatNumber(high);
  }
}

function showEpisodes() {
  const bound = (id, otherwise) => ($(id).value === "" ? otherwise : Number($(id).value));
  const fits = (name, value) => (value === null ? FILTERS.every((id) => !id.startsWith(name) || $(id).value === "")
    : value >= bound(`${name}-min`, -Infinity) && value <= bound(`${name}-max`, Infinity));
  const ended = $("ended").value;
  const [key, direction] = $("sort").value.split(":");
  const shown = state.episodes.filter((episode) => fits("return", episode.return) && fits("length", episode.length)
    && (!ended || episode.ended === ended));
  const rank = (episode) => (episode[key] === null ? Infinity : direction * episode[key]);
  shown.sort((a, b) => (rank(a) === rank(b) ? a.n - b.n : rank(a) - rank(b)));
  const all = state.episodes.length;
  $("count").textContent = shown.length === all ? plural(all, "episode")
    : `${shown.length.toLocaleString("en")} of ${plural(all, "episode")}`;
  $("reset").hidden = shown.length === all && $("sort").value === "n:1" && !ended && FILTERS.every((id) => !$(id).value);
  grid.show(shown, state.checkpoint);
}

function writeAddress(episode) {
  const parts = [state.experiment.name, state.checkpoint.label, ...(episode ? [String(episode.n)] : [])];
  const address = `#/${parts.map(encodeURIComponent).join("/")}`;
  const isOpened = episode && readAddress().length < parts.length && location.hash; // so that Back closes it
  try {
    history[isOpened ? "pushState" : "replaceState"](null, "", address);
  } catch { /* too many changes at once for the browser: the address lags behind */ }
}

function readAddress() {
  try {
    return location.hash.slice(2).split("/").map(decodeURIComponent);
  } catch {
    return [];
  }
}

async function goToAddress() {
  const [name, label, number] = readAddress();
  const experiment = experiments.find((shown) => shown.name === name) ?? experiments[0];
  // Back from an episode leads to the grid as it was.
  if (experiment !== state.experiment || label !== state.checkpoint.label) await chooseExperiment(experiment, label);
  const episode = number && state.episodes.find((shown) => String(shown.n) === number);
  if (episode) viewer.open(state.experiment, state.checkpoint, episode);
  else viewer.close();
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
  $("experiment").append(...experiments.map(({ name }) => element("option", { value: name }, name)));
  $("experiment-field").hidden = experiments.length < 2;
  $("experiment").addEventListener("change", () =>
    chooseExperiment(experiments.find(({ name }) => name === $("experiment").value)));
  $("filters").addEventListener("input", showEpisodes);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => setTimeout(showEpisodes));
  addEventListener("popstate", goToAddress);
  goToAddress();
}

start();
