// Tables of all videos: means of every metric, and the videos one by one.

const MODES = {
  v2: ["As the paper says it", "Blendshapes, head rotation and lips frame by frame; faces by networks that you supply."],
  truth: ["Against the truth", "Frame by frame against the true video."],
  legacy: ["As the release computes it", "The numbers of SkyReels-A1's scripts, quirks included: only to be compared with Table 1 of its paper."],
};

let meanings = new Map();

function named(name) { return term(name, meanings.get(name) ?? name); }

function overview(contents) {
  return Object.entries(MODES).map(([mode, [title, intro]]) => {
    const metrics = Object.entries(contents.metrics).filter(([, metric]) => metric.mode === mode);
    if (!metrics.length) return null;
    const published = metrics.some(([, { published }]) => published !== null);
    const heads = ["metric", "mean", "median", "unit", "ideal", "coverage", "videos", ...(published ? ["paper"] : [])];
    const body = metrics.map(([name, metric]) => {
      const arrow = metric.better === "lower" ? "↓" : "↑";
      const ideal = metric.ideal === null ? arrow : `${formatted(metric.ideal)} ${arrow}`;
      const paper = published ? [h("td", { class: "number" }, formatted(metric.published))] : [];
      if (metric.mean === null)
        return h("tr", { class: "absent" }, h("th", { scope: "row" }, named(name)),
          h("td", { colspan: 6, class: "reason" }, h("p", {}, metric.reason || "no video has a value")), paper);
      const cells = [formatted(metric.mean), formatted(metric.median), metric.unit, ideal,
        metric.coverage === null ? "" : percent.format(metric.coverage), `${whole.format(metric.videos)} of ${whole.format(contents.videos)}`];
      return h("tr", {}, h("th", { scope: "row" }, named(name)), cells.map((cell, i) => h("td", { class: i === 2 ? "unit" : "number" }, cell)), paper);
    });
    return h("section", {}, h("h2", {}, title), h("p", { class: "intro" }, intro),
      h("div", { class: "scroll" }, h("table", { class: "overview" },
        h("thead", {}, h("tr", {}, heads.map((text, i) => h("th", { scope: "col", class: i && i !== 3 ? "number" : null }, text)))),
        h("tbody", {}, body))));
  });
}

const COLUMNS = ["expression", "relative_pose_deg", "lip_gap_correlation", "flicker_excess", "facesim_arc", "truth_mae",
  "truth_ssim", "legacy_expression", "legacy_facesim_arc", "legacy_pose"];

class Videos {
  constructor(contents, onopen) {
    this.rows = contents.rows;
    this.open = new Map(contents.shown.map(({ video }, i) => [video, () => onopen(i)]));
    this.columns = COLUMNS.filter((name) => this.rows.some(({ measures }) => measures[name] && measures[name].value !== null));
    this.sorted = { by: null, down: true };
    this.body = h("tbody");
    const heads = this.columns.map((name) => h("th", { scope: "col", class: "number" },
      h("button", { class: "sort", onclick: () => this.sort(name) }, name)));
    this.element = h("section", {}, h("h2", {}, "Videos"),
      h("p", { class: "intro" }, "Each column can be sorted. Coverage is the lowest of a row. A video with a link is shown below with its curves."),
      h("div", { class: "scroll tall" }, h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "video"), h("th", { scope: "col", class: "number" }, "frames"), heads,
          h("th", { scope: "col", class: "number" }, "coverage"))), this.body)));
    this.fill();
  }

  sort(name) {
    this.sorted = { by: name, down: this.sorted.by === name ? !this.sorted.down : true };
    const value = ({ measures }) => measures[name]?.value ?? null;
    this.rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return this.sorted.down ? y - x : x - y;
    });
    this.fill();
  }

  fill() {
    this.body.replaceChildren(...this.rows.map(({ video, frames, measures }) => {
      const open = this.open.get(video);
      const covered = this.columns.map((name) => measures[name]?.coverage).filter((value) => value !== null && value !== undefined);
      return h("tr", {},
        h("th", { scope: "row" }, open ? h("button", { class: "link", onclick: open }, video) : video),
        h("td", { class: "number" }, whole.format(frames)),
        this.columns.map((name) => h("td", { class: "number" }, formatted(measures[name]?.value))),
        h("td", { class: "number" }, covered.length ? percent.format(Math.min(...covered)) : ""));
    }));
  }
}

function failures(contents) {
  if (!contents.failed.length) return null;
  return h("section", { class: "failures" }, h("h2", {}, "Failed"),
    h("p", { class: "intro" }, "Of these nothing was measured; no mean counts them."),
    table([{ text: "video" }, { text: "why" }], contents.failed.map(({ video, reason }) => [video, reason]), { label: "Failed videos" }));
}
