// Clips to look at: kept ones, then each rule's.
class Examples {
  constructor(contents, decider, meanings) {
    this.decider = decider;
    this.paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.cards = contents.examples.map((example) => this.#card(example, contents.rules));
    this.button = h("button", { type: "button", hidden: !this.cards.some(({ video }) => video), onclick: () => this.#pauseAll(!this.paused) });
    const groups = new Map();
    contents.examples.forEach((example, i) => groups.set(example.rule, [...(groups.get(example.rule) ?? []), this.cards[i]]));
    this.element = h("section", { class: "examples" },
      h("header", {}, h("h2", {}, "Examples"), this.button),
      h("p", { class: "intro" }, "Kept clips from their samples; of each rule the clip nearest to its threshold and others drawn at random, from their sources as they are now."),
      h("div", { class: "groups" }, [...groups].map(([rule, cards]) => h("section", {},
        rule < 0 ? h("h3", { class: "kept" }, "kept") : h("h3", {}, "rejected by ", term(contents.rules[rule].name, [contents.rules[rule].asks, ...contents.rules[rule].reads.map(meanings)])),
        h("div", { class: "row" }, cards.map(({ element }) => element))))));
    this.#pauseAll(this.paused);
    const watcher = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
      const card = this.cards.find(({ video }) => video === target);
      card.seen = isIntersecting;
      this.#play(card);
    }));
    for (const { video } of this.cards) if (video) watcher.observe(video);
  }

  #card(example, rules) {
    const card = { paused: false, seen: false, video: null };
    let picture = h("p", { class: "gone" }, example.note || "no picture");
    if (example.video) {
      card.source = `data:video/mp4;base64,${example.video}`;
      card.video = h("video", { muted: true, loop: true, playsinline: true, preload: "none" });
      card.video.muted = true;
      card.button = h("button", { type: "button", class: "preview", onclick: () => { card.paused = !card.paused; this.#play(card); } }, card.video);
      picture = card.button;
    }
    card.then = h("p", { class: "then" });
    const why = example.rule < 0 ? null : h("p", { class: "why" }, `${formatted(example.value)}, asked ${rules[example.rule].at_most ? "≤" : "≥"} ${formatted(example.threshold)}`);
    card.name = example.source;
    card.element = h("figure", { class: "example" }, picture,
      h("figcaption", {},
        h("p", { class: "source", title: example.source }, example.source), why,
        h("p", { class: "id" }, h("code", {}, example.clip)), card.then,
        example.video && example.note ? h("p", { class: "note" }, example.note) : null));
    return card;
  }

  #pauseAll(paused) {
    this.paused = paused;
    this.button.textContent = paused ? "Play previews" : "Pause previews";
    for (const card of this.cards) {
      card.paused = paused;
      this.#play(card);
    }
  }

  #play(card) {
    if (!card.video) return;
    card.button.setAttribute("aria-label", `${card.paused ? "Play" : "Pause"} the preview of ${card.name}`);
    card.button.classList.toggle("paused", card.paused);
    if (!card.seen) return card.video.pause();
    if (!card.video.src) card.video.src = card.source;
    if (!card.paused) card.video.play().catch(() => {});
    else {
      card.video.preload = "auto";
      card.video.pause();
    }
  }

  update(rules) {
    const { KEPT, WOULD_PASS, UNKNOWN } = this.decider.outcomes;
    this.cards.forEach((card, k) => {
      const then = this.decider.then[this.decider.firstExample + k];
      const kept = this.decider.examplesKept[k];
      const text = kept && then < KEPT ? `would go out: ${rules[then].name}` : !kept && then === WOULD_PASS ? "would come in" : !kept && then === UNKNOWN ? "to be recomputed" : "";
      card.then.textContent = text;
      card.element.classList.toggle("moves", text !== "");
    });
  }
}
