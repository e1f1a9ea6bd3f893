// The data: experiments are in the page, episodes and curves in scripts that are loaded when they are needed.

const experiments = JSON.parse($("data").textContent).experiments;
const loading = new Map();

window.galleryData = (name, value) => loading.get(name)?.arrive(value);

/** What the script of that name holds. */
function load(name) {
  if (!loading.has(name)) {
    const entry = {};
    entry.value = new Promise((resolve, reject) => {
      entry.arrive = resolve;
      const script = element("script", { src: `data/${name}.js` });
      script.addEventListener("error", () => {
        loading.delete(name);
        reject(new Error("Part of this page's data is missing. Run gallery.py again."));
      });
      script.addEventListener("load", () => script.remove());
      document.head.append(script);
    });
    loading.set(name, entry);
  }
  return loading.get(name).value;
}

const loadEpisodes = (checkpoint) => load(checkpoint.script);

/** An episode's curves: rewards and uncertainty per step, null where there are none, and the steps to a point. */
async function loadCurves(checkpoint, episode) {
  const { chunks } = await loadEpisodes(checkpoint);
  const [rewards, uncertainty, stride] = (await load(chunks[episode.chunk]))[String(episode.n)];
  return { rewards: floats(rewards), uncertainty: floats(uncertainty), stride };
}

function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function floats(text) {
  return text === null ? null : new Float32Array(bytes(text).buffer);
}
