// One video of panels that play in step, and its curves, whose cursors follow it.

class Player {
  constructor(shown, measures) {
    this.shown = shown;
    this.frame = 0;
    this.number = h("output", { class: "frame" });
    this.charts = shown.charts.map((chart) => new Chart(chart, shown.frames, (frame) => this.seek(frame)));
    this.element = h("article", { class: "player", "aria-label": shown.video },
      h("div", { class: "stage" }, this.screen()), this.measures(measures),
      h("div", { class: "charts" }, this.charts.map(({ element }) => element)));
    this.show(0);
  }

  screen() {
    const { mp4, columns, note } = this.shown;
    if (!mp4) return h("p", { class: "gone" }, `There is no video: ${note}`);
    const all = columns.reduce((sum, [, width]) => sum + width, 0);
    const names = columns.map(([name, width]) => {
      const label = h("span", { class: `of ${name}` }, name);
      label.style.width = `${(100 * width) / all}%`;
      return label;
    });
    this.video = h("video", { src: `data:video/mp4;base64,${mp4}`, loop: true, muted: true, playsinline: true, preload: "auto" });
    this.video.muted = true;
    this.button = h("button", { onclick: () => this.toggle() }, "Play");
    this.slider = h("input", {
      type: "range", min: 0, max: Math.max(0, this.length() - 1), step: 1, value: 0, "aria-label": "Frame",
      oninput: (event) => this.seek(Number(event.target.value)),
    });
    const speed = h("select", { "aria-label": "Speed", onchange: (event) => { this.video.playbackRate = Number(event.target.value); } },
      [1, 0.5, 0.25].map((rate) => h("option", { value: rate }, `${rate}×`)));
    this.video.addEventListener("loadedmetadata", () => this.seek(0));
    this.video.addEventListener("click", () => this.toggle());
    this.video.addEventListener("play", () => { this.button.textContent = "Pause"; this.follow(); });
    this.video.addEventListener("pause", () => { this.button.textContent = "Play"; this.show(this.now()); });
    this.video.addEventListener("seeked", () => this.show(this.now()));
    const panels = h("div", { class: "panels" }, h("div", { class: "names" }, names), this.video);
    panels.style.maxWidth = `${Math.round(all * 1.6)}px`;
    return [panels, h("div", { class: "controls" }, this.button, speed, this.slider, this.number)];
  }

  // Frames that the page has; the curves may go on for longer.
  length() {
    return Math.min(this.shown.frames, Math.max(1, Math.round((this.video?.duration || Infinity) * this.shown.fps)));
  }

  now() { return Math.min(this.shown.frames - 1, Math.floor(this.video.currentTime * this.shown.fps + 1e-3)); }

  seek(frame) {
    const at = Math.max(0, Math.min(this.length() - 1, frame));
    if (this.video) { this.video.pause(); this.video.currentTime = (at + 0.5) / this.shown.fps; }
    this.show(at);
  }

  toggle() { if (this.video.paused) this.video.play(); else this.video.pause(); }

  follow() {
    if (this.video.paused || !this.element.isConnected) { this.video.pause(); return; }
    this.show(this.now());
    requestAnimationFrame(() => this.follow());
  }

  show(frame) {
    this.frame = frame;
    this.charts.forEach((chart) => chart.move(frame));
    this.number.textContent = `frame ${frame} · ${(frame / this.shown.fps).toFixed(2)} s`;
    if (this.slider) { this.slider.max = this.length() - 1; this.slider.value = frame; }
  }

  measures(measures) {
    const rows = Object.entries(measures).map(([name, { value, coverage, offset, reason }]) => h("tr", {},
      h("th", { scope: "row" }, named(name)), h("td", { class: "number" }, formatted(value)),
      h("td", { class: "number" }, coverage === null ? "" : percent.format(coverage)),
      h("td", { class: "reason" }, [offset ? `driver read ${offset > 0 ? "+" : "−"}${Math.abs(offset)} frames` : "", reason].filter(Boolean).join("; "))));
    return h("details", {}, h("summary", {}, "All numbers of this video"),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["metric", "value", "coverage", ""].map((text, i) =>
        h("th", { scope: "col", class: i === 1 || i === 2 ? "number" : null }, text)))), h("tbody", {}, rows))));
  }
}
