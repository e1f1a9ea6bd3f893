// The grid of episodes. Only the cards that can be seen exist, however many episodes there are.

const CARD = { least: 210, text: 62, gap: 16, spare: 2 };
/** Pixels per frame above which pictures wait until the scrolling slows down. */
const FAST = 1200;

class Grid {
  constructor(onOpen) {
    Object.assign(this, { onOpen, list: new ListedEpisodes([]), cards: new Map(), top: 0 });
    this.root = $("grid");
    this.root.addEventListener("keydown", (event) => this.moveFocus(event));
    new ResizeObserver(() => this.layOut()).observe(this.root);
    addEventListener("scroll", () => {
      this.frame ??= requestAnimationFrame(() => {
        this.frame = null;
        this.render();
      });
    }, { passive: true });
  }

  /** Shows these episodes, in this order. */
  show(list, checkpoint) {
    Object.assign(this, { list, checkpoint, width: 0 });
    this.clear();
    $("empty").hidden = list.length > 0;
    this.layOut();
  }

  clear() {
    this.root.replaceChildren();
    this.cards.clear();
  }

  layOut() {
    const width = this.root.clientWidth;
    if (!width || !this.checkpoint || width === this.width) return;
    this.width = width;
    const gap = width < 500 ? 12 : CARD.gap;
    this.columns = Math.max(width < 500 ? 2 : 1, Math.floor((width + gap) / (CARD.least + gap)));
    this.cardWidth = (width - (this.columns - 1) * gap) / this.columns;
    const { width: w, height: h } = this.checkpoint;
    this.pictureHeight = Math.round(this.cardWidth * (w && h ? Math.min(h, w) / w : 2 / 3));
    this.rowHeight = this.pictureHeight + CARD.text + 2 + gap;
    this.gap = gap;
    this.root.style.height = `${Math.max(0, Math.ceil(this.list.length / this.columns) * this.rowHeight - gap)}px`;
    this.clear();
    this.render();
  }

  /** Makes the cards that can be seen, and removes those that can't. */
  render() {
    if (!this.rowHeight) return;
    const top = -this.root.getBoundingClientRect().top;
    const isFast = Math.abs(top - this.top) > FAST;
    this.top = top;
    const first = Math.max(0, Math.floor(top / this.rowHeight) - CARD.spare) * this.columns;
    const rows = Math.ceil(innerHeight / this.rowHeight) + 2 * CARD.spare + 1;
    const last = Math.min(this.list.length, first + rows * this.columns);
    for (const [index, card] of this.cards) {
      if (index >= first && index < last) continue;
      card.remove();
      this.cards.delete(index);
    }
    const made = [];
    for (let index = first; index < last; index += 1) {
      const card = this.cards.get(index);
      if (card && !(card.isWaiting && this.list.at(index))) continue;
      card?.remove();
      made.push(this.make(index));
    }
    this.root.append(...made);
    clearTimeout(this.pictures);
    if (isFast) this.pictures = setTimeout(() => this.loadPictures(), 80);
    else this.loadPictures();
    if (first < last) this.fill(first, last);
  }

  async fill(first, last) {
    const { list } = this;
    const wasMissing = await list.ensure(first, last).catch((error) => {
      $("empty").textContent = error.message;
      $("empty").hidden = false;
    });
    if (wasMissing && list === this.list) this.render();
  }

  loadPictures() {
    for (const card of this.cards.values()) {
      const image = card.querySelector("img[data-src]");
      if (!image) continue;
      image.src = image.dataset.src;
      delete image.dataset.src;
    }
  }

  make(index) {
    const episode = this.list.at(index);
    const card = episode ? this.card(episode) : element("div", { class: "card is-waiting" });
    card.isWaiting = !episode;
    const x = (index % this.columns) * (this.cardWidth + this.gap), y = Math.floor(index / this.columns) * this.rowHeight;
    Object.assign(card.style, { left: `${x}px`, top: `${y}px`, width: `${this.cardWidth}px`, height: `${this.rowHeight - this.gap}px` });
    card.dataset.index = index;
    this.cards.set(index, card);
    return card;
  }

  card(episode) {
    const made = element("button", {
      class: "card", type: "button", "data-n": episode.n,
      "aria-label": `Episode ${episode.n}, return ${formatNumber(episode.return)}, ${plural(episode.length, "step")}`,
    },
    this.picture(episode),
    element("span", { class: "card-text" },
      element("span", { class: "card-number" }, `#${episode.n}`),
      element("span", { class: "card-return" }, formatNumber(episode.return)),
      element("span", { class: "card-length" }, plural(episode.length, "step")),
      sparkline(episode.spark)));
    if (episode.warnings.length) {
      made.firstChild.append(element("span", { class: "badge", title: episode.warnings.join("; ") }, "!"));
    }
    made.addEventListener("click", () => this.onOpen(episode));
    return made;
  }

  picture(episode) {
    const frame = element("span", { class: "card-picture" });
    frame.style.height = `${this.pictureHeight}px`;
    if (!episode.has("thumbnail")) {
      frame.classList.add("bare");
      frame.append(sparkline(episode.spark), element("span", { class: "bare-text" },
        episode.has("video") ? "no thumbnail" : episode.has("lostVideo") ? "video is missing" : "no video"));
      return frame;
    }
    const image = element("img", { decoding: "async", alt: "", "data-src": episode.file("thumbnails") });
    image.addEventListener("error", () => {
      frame.classList.add("bare");
      image.replaceWith(sparkline(episode.spark));
    });
    frame.append(image);
    if (episode.has("video")) {
      frame.append(svg("svg", { class: "play-mark", viewBox: "0 0 24 24" },
        svg("path", { class: "solid", d: "M9 7v10l8-5z" })));
    }
    return frame;
  }

  /** The episode before or after one, in the order shown; undefined for none. */
  neighbour(episode, move) {
    const position = this.list.position(episode);
    return position < 0 ? Promise.resolve(undefined) : this.list.get(position + move);
  }

  hasNeighbour(episode, move) {
    const position = this.list.position(episode);
    return position >= 0 && position + move >= 0 && position + move < this.list.length;
  }

  focus(episode) {
    const position = this.list.position(episode);
    if (position >= 0) this.focusAt(position);
  }

  focusAt(index) {
    const top = Math.floor(index / this.columns) * this.rowHeight + this.root.getBoundingClientRect().top;
    const room = $("filters").offsetHeight + 8;
    if (top < room || top + this.rowHeight > innerHeight) {
      scrollBy({ top: top < room ? top - room : top + this.rowHeight - innerHeight, behavior: "instant" });
      this.render();
    }
    this.cards.get(index)?.focus({ preventScroll: true });
  }

  moveFocus(event) {
    const card = event.target.closest(".card");
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns }[event.key];
    const to = move && card ? Number(card.dataset.index) + move : -1;
    if (to < 0 || to >= this.list.length) return;
    event.preventDefault();
    this.focusAt(to);
  }
}

/** A small picture of the return as it grows. */
function sparkline(text) {
  const points = text ? [...bytes(text)] : [];
  const last = Math.max(1, points.length - 1);
  const line = points.map((value, index) => `${((index / last) * 100).toFixed(1)},${(29 - (value / 255) * 26).toFixed(1)}`);
  const picture = svg("svg", { class: "spark", viewBox: "0 0 100 32", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (line.length > 1) picture.append(svg("polyline", { points: line.join(" ") }));
  return picture;
}
