// What a run met besides rules: failures, licences, datasets, and the statistics that no setting bounds.

function failuresSection(contents) {
  if (!contents.failures.length) return h("section", {}, h("h2", {}, "Failures"), h("p", { class: "nothing" }, "No clip failed."));
  const rows = contents.failures.map(({ stage, error, clips, told }) => [
    h("code", {}, error ?? "–"), stage ?? "–", whole.format(clips),
    h("ul", {}, told.map(({ source, message }) => h("li", {}, h("span", { class: "source" }, source), " ", h("span", { class: "message" }, message ?? "")))),
  ]);
  return h("section", {}, h("h2", {}, "Failures by cause"),
    table([{ text: "error" }, { text: "stage" }, { text: "clips", number: true }, { text: "for instance" }], rows, { label: "Failures by cause" }));
}

function licencesSection(contents) {
  const outcomes = ["kept", "rejected", "failed", "unknown"].filter((outcome) => contents.licences.some((one) => one[outcome]));
  const rows = contents.licences.map((one) => [one.licence, ...[one.clips, ...outcomes.map((outcome) => one[outcome] ?? 0)].map((n) => whole.format(n))]);
  return h("section", {}, h("h2", {}, "Licences"),
    table([{ text: "licence" }, ...["clips", ...outcomes].map((text) => ({ text, number: true }))], rows, { label: "Licences" }));
}

class Datasets {
  constructor(contents, decider) {
    this.decider = decider;
    this.rows = contents.datasets.map((name, i) => ({ chosen: (stratum) => stratum.dataset === i && !stratum.further, name, then: h("span"), share: h("span") }));
    const { KEPT, FAILED, OTHER_RULE } = decider.outcomes;
    const rows = this.rows.map(({ name, chosen, then, share }) => {
      const all = decider.countNow(() => true, chosen);
      const [kept, rejected, failed] = [(now) => now === KEPT, (now) => now < KEPT || now === OTHER_RULE, (now) => now === FAILED].map((meets) => decider.countNow(meets, chosen));
      return [name, whole.format(all), whole.format(rejected), whole.format(failed), whole.format(kept), percent.format(kept / all), then, share];
    });
    this.element = h("section", {}, h("h2", {}, "Datasets"),
      table([{ text: "dataset" }, ...["clips", "rejected", "failed", "kept now", "share", "kept then", "share"].map((text) => ({ text, number: true }))], rows, { label: "Datasets" }));
  }

  update() {
    const { KEPT } = this.decider.outcomes;
    for (const { chosen, then, share } of this.rows) {
      const kept = this.decider.count(() => true, (outcome) => outcome === KEPT, chosen);
      then.textContent = counted(kept);
      share.textContent = percent.format(kept.count / this.decider.countNow(() => true, chosen));
    }
  }
}

function statisticsSection(contents, charts) {
  return h("section", { class: "statistics" }, h("h2", {}, "Other statistics"),
    h("div", { class: "cards" }, charts.map((chart) => h("article", { class: "card" },
      h("p", { class: "statistic" }, term(chart.data.title, chart.data.meaning), h("span", { class: "unit" }, chart.data.unit), h("span", { class: "limits" }, chart.data.stage)), chart.element))));
}
