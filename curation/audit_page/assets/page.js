async function start() {
  const place = document.getElementById("page");
  const contents = JSON.parse(document.getElementById("contents").textContent);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
  document.title = `${contents.name}: Faceloom audit`;
  const columns = await unpackColumns(contents.packed.columns, contents.packed.statistics.length, contents.packed.rows);
  const decider = new Decider(contents, columns);
  const state = new State(contents);
  const statistics = new Map(contents.charts.map(({ title, unit, meaning }) => [title, `${title}: ${meaning} (${unit})`]));
  const meanings = (name) => statistics.get(name) ?? name;

  const datasets = h("select", { "aria-label": "Dataset", onchange: () => schedule() },
    h("option", { value: "" }, `all ${contents.datasets.length} datasets`),
    contents.datasets.map((name, i) => h("option", { value: i }, name)));
  if (contents.datasets.length < 2) datasets.hidden = true;
  const chosen = (stratum) => !stratum.further && (datasets.value === "" || stratum.dataset === Number(datasets.value));

  const verdict = new Verdict(contents, decider, state, datasets);
  const funnel = new Funnel(contents, decider, meanings);
  const cards = contents.controls.map((control) => new Card(control, contents, state));
  const changes = new Changes(contents, decider, state);
  const examples = new Examples(contents, decider, meanings);
  const perDataset = new Datasets(contents, decider);
  const onCards = new Set(contents.controls.flatMap((control) => control.charts));
  const others = contents.charts.filter((_, i) => !onCards.has(i)).map((data) => new Chart(data));
  others.forEach((chart) => chart.move(state.settings));

  const rows = decider.strata.reduce((sum, { size, now }) => sum + (now === decider.outcomes.FAILED ? 0 : size), 0);
  const packed = decider.firstExample;
  const sampled = packed < rows
    ? `This page decides a sample of ${whole.format(packed)} of ${whole.format(rows)} rows again, more of them where few met the same fate. “now” and the histograms count all rows; ≈ marks estimates, ± holds the true number 19 times in 20. Exact numbers: faceloom what-if.`
    : null;

  place.replaceChildren(
    heading(contents, decider),
    h("main", { id: "main", tabindex: "-1" },
      h("section", { class: "what-if" },
        h("h2", {}, "Thresholds"),
        h("p", { class: "intro" }, "Move a threshold, and every clip of the ledger is decided again, here in the page."),
        h("p", { class: "legend" },
          h("span", { class: "kept" }, "kept"), h("span", { class: "others" }, "not kept"), h("span", { class: "limit" }, "threshold"), h("span", { class: "refused" }, "what it refuses"),
          "Bar heights follow the square root of the count."),
        sampled ? h("p", { class: "note" }, sampled) : null,
        verdict.element,
        h("div", { class: "split" }, h("aside", {}, funnel.element), h("div", {},
          h("div", { class: "cards" }, cards.filter(({ control }) => control.effect === "threshold").map(({ element }) => element)),
          h("h3", { class: "second" }, "Limits that also decide what is measured"),
          h("p", { class: "intro" }, "The clips that a change concerns would have to be measured anew: the ledger cannot tell what becomes of them."),
          h("div", { class: "cards" }, cards.filter(({ control }) => control.effect !== "threshold").map(({ element }) => element)))),
        changes.element),
      examples.element,
      perDataset.element,
      licencesSection(contents),
      failuresSection(contents),
      statisticsSection(contents, others)),
    tip.box);

  let scheduled = false;
  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; update(); });
  }
  function update() {
    const changed = state.changed().length > 0;
    decider.decide(state.settings, state.base);
    cards.forEach((card) => card.update());
    verdict.update(changed, chosen);
    funnel.update(chosen);
    changes.update(changed, chosen);
    examples.update(contents.rules);
    perDataset.update();
  }
  state.onChange(schedule);
  update();
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  document.getElementById("page").replaceChildren(h("p", { class: "loading" }, `This page cannot be shown: ${error.message}`));
  throw error;
});
