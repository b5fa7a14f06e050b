function start() {
  const contents = JSON.parse(document.getElementById("contents").textContent);
  meanings = new Map(Object.entries(contents.metrics).map(([name, { meaning, unit }]) => [name, unit ? `${meaning} (${unit})` : meaning]));
  const measures = new Map(contents.rows.map((row) => [row.video, row.measures]));
  const place = h("div", { class: "place" });
  const picks = h("nav", { class: "picks", "aria-label": "Videos on this page" });
  let player = null;
  const open = (i, scroll = true) => {
    player?.video?.pause();
    const shown = contents.shown[i];
    player = new Player(shown, measures.get(shown.video));
    place.replaceChildren(player.element);
    [...picks.children].forEach((button, at) => button.setAttribute("aria-pressed", at === i));
    if (scroll) beside.scrollIntoView({ behavior: "instant" });
  };
  picks.append(...contents.shown.map(({ video }, i) => h("button", { onclick: () => open(i, false) }, video)));
  const beside = h("section", { class: "beside" }, h("h2", {}, "Side by side"),
    h("p", { class: "intro" }, "Panels are shown at the same instant of time. A curve stops where a face was not found; click or drag in it to go to a frame."),
    picks, place);
  const facts = [["videos", contents.videos], ["failed", contents.failed.length],
    ["frames", contents.rows.reduce((sum, { frames }) => sum + frames, 0)]];
  document.getElementById("page").replaceChildren(
    h("header", {}, h("p", { class: "kind" }, `Faceloom ${contents.faceloom}`), h("h1", {}, "Evaluation"),
      h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, whole.format(value)))))),
    h("main", {}, overview(contents), new Videos(contents, open).element, contents.shown.length ? beside : "", failures(contents) ?? ""),
    tip.box);
  if (contents.shown.length) open(0, false);
  document.documentElement.setAttribute("data-ready", "");
}

start();
