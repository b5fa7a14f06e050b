// Histograms: kept clips above the axis, the others below it, and the limits of rules as lines that move with their settings.

class Chart {
  // Of the limits, those of the setting `own`, if it is given, stand out.
  constructor(data, own = null) {
    this.data = data;
    this.own = data.limits.map(({ threshold }) => own === null || settingsIn(threshold).has(own));
    this.histogram = data.histogram;
    this.lines = [];
    this.element = this.histogram ? this.#drawn() : h("p", { class: "nothing" }, "No clip was measured so far.");
  }

  get low() { return this.histogram.low; }
  get high() { return this.histogram.low + this.histogram.kept.length * this.histogram.step; }

  #drawn() {
    const { kept, others, step, below, above, whole: one } = this.histogram;
    const bins = kept.length;
    const tallest = Math.sqrt(Math.max(...kept, ...others, 1));
    const bar = (counts, sign) => counts.map((n, i) => (n ? `M${i + 0.06} 50v${(sign * 46 * Math.sqrt(n)) / tallest}h0.88V50z` : "")).join("");
    this.refused = this.data.limits.map((_, k) => svg("rect", { class: this.own[k] ? "refused" : "refused foreign", y: 0, height: 100 }));
    this.lines = this.data.limits.map((_, k) => svg("line", { class: this.own[k] ? "limit" : "limit foreign", y1: 0, y2: 100 }));
    const picture = svg("svg", { viewBox: `0 0 ${bins} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
      ...this.refused,
      svg("path", { class: "kept", d: bar(kept, -1) }),
      svg("path", { class: "others", d: bar(others, 1) }),
      svg("line", { class: "axis", x1: 0, x2: bins, y1: 50, y2: 50 }),
      ...this.lines);
    const readout = h("output", { class: "readout" });
    const tell = (event) => {
      const box = picture.getBoundingClientRect();
      const i = Math.max(0, Math.min(bins - 1, Math.floor(((event.clientX - box.left) / box.width) * bins)));
      const from = this.low + i * step;
      const span = one ? formatted(from) : `${formatted(from)} to ${formatted(from + step)}`;
      readout.textContent = `${span}: ${whole.format(kept[i])} kept, ${whole.format(others[i])} not`;
    };
    picture.addEventListener("pointermove", tell);
    picture.addEventListener("pointerleave", () => { readout.textContent = ""; });
    const measured = [...kept, ...others].reduce((a, b) => a + b, 0);
    return h("figure", { class: "chart", role: "img", "aria-label": this.#spoken(measured) },
      picture,
      h("figcaption", {},
        h("span", {}, `${below ? "≤ " : ""}${formatted(this.low)}`),
        readout,
        h("span", {}, `${above ? "≥ " : ""}${formatted(this.high - (one ? 1 : 0))}`)));
  }

  #spoken(measured) {
    const { kept, others, step } = this.histogram;
    const all = kept.map((n, i) => n + others[i]);
    let seen = 0;
    const middle = all.findIndex((n) => (seen += n) >= measured / 2);
    return `${this.data.title}: ${whole.format(measured)} clips measured, from ${formatted(this.low)} to ${formatted(this.high)} ` +
      `${this.data.unit}, half of them below about ${formatted(this.low + (middle + 1) * step)}`;
  }

  // Puts every line where its limit is under these settings; returns the limits.
  move(settings) {
    const limits = this.data.limits.map((limit) => valueOf(limit.threshold, new Map(), settings, 0));
    if (!this.histogram) return limits;
    const bins = this.histogram.kept.length;
    limits.forEach((limit, k) => {
      const known = Number.isFinite(limit);
      // Of whole numbers, a limit "at most n" still lets bin n pass.
      const beyond = this.histogram.whole && this.data.limits[k].at_most ? 1 : 0;
      const x = Math.max(0, Math.min(bins, (limit + beyond - this.low) / this.histogram.step));
      this.lines[k].classList.toggle("away", !known);
      this.refused[k].classList.toggle("away", !known);
      if (!known) return;
      this.lines[k].setAttribute("x1", x);
      this.lines[k].setAttribute("x2", x);
      const atMost = this.data.limits[k].at_most;
      this.refused[k].setAttribute("x", atMost ? x : 0);
      this.refused[k].setAttribute("width", atMost ? bins - x : x);
    });
    return limits;
  }
}
