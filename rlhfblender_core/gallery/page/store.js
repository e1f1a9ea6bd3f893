// The data: summaries are in the page, episodes in pieces of at most a thousand, in scripts loaded when they are needed.

const { experiments, notes } = JSON.parse($("data").textContent);
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

const FLAGS = { terminated: 1, truncated: 2, video: 4, lostVideo: 8, thumbnail: 16, arrays: 32 };
const EXTENSIONS = { renders: "mp4", thumbnails: "png", episodes: "npz", rewards: "npy", uncertainty: "npy" };

class Episode {
  constructor(checkpoint, piece, columns, index) {
    Object.assign(this, {
      checkpoint, piece, n: columns.n[index], return: columns.return[index], length: columns.length[index],
      flags: columns.flags[index], seed: columns.seed[index], fps: columns.fps[index], chunk: columns.chunk[index],
      spark: columns.spark[index], warnings: columns.warnings[index] ?? [],
    });
  }

  has(name) {
    return (this.flags & FLAGS[name]) !== 0;
  }

  get ended() {
    return this.has("terminated") ? "terminated" : this.has("truncated") ? "truncated" : "open";
  }

  /** Where its file of that kind is, from the page's folder. */
  file(kind) {
    const { experiment, label } = this.checkpoint;
    return `../${kind}/${encodeURIComponent(experiment)}/${encodeURIComponent(label)}/${this.n}.${EXTENSIONS[kind]}`;
  }

  get video() {
    return this.has("video") ? this.file("renders") : null;
  }
}

for (const experiment of experiments) {
  for (const checkpoint of experiment.checkpoints) {
    const { name, firstAction, actions } = experiment;
    Object.assign(checkpoint, { experiment: name, firstAction, actions: actions ?? checkpoint.actions });
  }
}

const pieces = new Map(), arrived = new Map();

/** The episodes of a checkpoint's piece. */
function loadPiece(checkpoint, index) {
  const [name] = checkpoint.pieces[index];
  if (!pieces.has(name)) {
    const made = load(name).then((columns) => {
      arrived.set(name, columns.n.map((_, at) => new Episode(checkpoint, name, columns, at)));
      return arrived.get(name);
    });
    made.catch(() => pieces.delete(name));
    pieces.set(name, made);
  }
  return pieces.get(name);
}

/** All of a checkpoint's episodes: what sorting and filters need. */
async function loadAll(checkpoint) {
  return (await Promise.all(checkpoint.pieces.map((_, index) => loadPiece(checkpoint, index)))).flat();
}

/** The checkpoint's episode of that number; undefined if there is none. */
async function findEpisode(checkpoint, number) {
  const index = checkpoint.pieces.findLastIndex(([, first]) => first <= number);
  return index < 0 ? undefined : (await loadPiece(checkpoint, index)).find((episode) => episode.n === number);
}

/** Episodes that are there already, in an order. */
class ListedEpisodes {
  constructor(episodes) {
    this.episodes = episodes;
    this.positions = new Map(episodes.map((episode, index) => [episode, index]));
  }

  get length() {
    return this.episodes.length;
  }

  /** The episode at a position; undefined while it isn't loaded. */
  at(index) {
    return this.episodes[index];
  }

  async get(index) {
    return this.episodes[index];
  }

  async ensure() {
    return false;
  }

  position(episode) {
    return this.positions.get(episode) ?? -1;
  }
}

/** A checkpoint's episodes by number, of which only the pieces that are looked at are loaded. */
class LazyEpisodes {
  constructor(checkpoint) {
    this.checkpoint = checkpoint;
    this.starts = [];
    this.length = 0;
    for (const [, , count] of checkpoint.pieces) {
      this.starts.push(this.length);
      this.length += count;
    }
  }

  loaded(piece) {
    return arrived.get(this.checkpoint.pieces[piece]?.[0]);
  }

  pieceOf(index) {
    return this.starts.findLastIndex((start) => start <= index);
  }

  at(index) {
    const piece = this.pieceOf(index);
    return this.loaded(piece)?.[index - this.starts[piece]];
  }

  async get(index) {
    if (index < 0 || index >= this.length) return undefined;
    await this.ensure(index, index + 1);
    return this.at(index);
  }

  /** Loads the episodes of these positions; whether any were missing. */
  async ensure(first, last) {
    const missing = [];
    for (let piece = this.pieceOf(first); piece <= this.pieceOf(last - 1); piece += 1) {
      if (!this.loaded(piece)) missing.push(piece);
    }
    await Promise.all(missing.map((piece) => loadPiece(this.checkpoint, piece)));
    return missing.length > 0;
  }

  position(episode) {
    const piece = this.checkpoint.pieces.findIndex(([name]) => name === episode.piece);
    return piece < 0 ? -1 : this.starts[piece] + this.loaded(piece).indexOf(episode);
  }
}
