// The grid of episodes. Cards are made as they are scrolled to, and pictures loaded as they come into view.

const CARDS_AT_ONCE = 90;

class Grid {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.episodes = [];
    this.made = 0;
    this.watcher = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) this.makeMore();
    }, { rootMargin: "1200px" });
    this.watcher.observe($("more"));
    $("grid").addEventListener("keydown", (event) => this.moveFocus(event));
  }

  /** Shows these episodes, in this order. */
  show(episodes, checkpoint) {
    this.episodes = episodes;
    this.checkpoint = checkpoint;
    this.made = 0;
    $("grid").replaceChildren();
    $("empty").hidden = episodes.length > 0;
    this.makeMore();
  }

  makeMore() {
    const next = this.episodes.slice(this.made, this.made + CARDS_AT_ONCE);
    if (!next.length) return;
    $("grid").append(...next.map((episode) => this.card(episode)));
    this.made += next.length;
    // Observed anew: the sentinel may still be in view, and then nothing would tell.
    this.watcher.unobserve($("more"));
    this.watcher.observe($("more"));
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
    const { width, height } = this.checkpoint;
    frame.style.aspectRatio = width && height ? `${width} / ${Math.min(height, width)}` : "3 / 2";
    if (!episode.thumbnail) {
      frame.classList.add("bare");
      frame.append(sparkline(episode.spark), element("span", { class: "bare-text" },
        episode.video ? "no thumbnail" : episode.lost ? "video is missing" : "no video"));
      return frame;
    }
    const image = element("img", { loading: "lazy", decoding: "async", alt: "", src: episode.thumbnail });
    image.addEventListener("error", () => {
      frame.classList.add("bare");
      image.replaceWith(sparkline(episode.spark));
    });
    frame.append(image);
    if (episode.video) {
      frame.append(svg("svg", { class: "play-mark", viewBox: "0 0 24 24" },
        svg("path", { class: "solid", d: "M9 7v10l8-5z" })));
    }
    return frame;
  }

  /** The episode before or after one, in the order shown. */
  neighbour(episode, move) {
    return this.episodes[this.episodes.indexOf(episode) + move];
  }

  focus(episode) {
    while (this.made < this.episodes.length && !this.cardOf(episode)) this.makeMore();
    this.cardOf(episode)?.focus();
  }

  cardOf(episode) {
    return $("grid").querySelector(`[data-n="${episode.n}"]`);
  }

  moveFocus(event) {
    const cards = [...$("grid").children];
    const index = cards.indexOf(document.activeElement);
    if (index < 0) return;
    const inRow = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -inRow, ArrowDown: inRow }[event.key];
    if (!move || !cards[index + move]) return;
    event.preventDefault();
    cards[index + move].focus();
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
