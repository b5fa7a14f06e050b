// One row a rule, in order of cost: how many clips are left after it, how many it rejects now and then.
class Funnel {
  constructor(contents, decider, meanings) {
    this.decider = decider;
    const { KEPT, WOULD_PASS, UNKNOWN, OTHER_RULE, FAILED } = decider.outcomes;
    const rows = contents.rules.map((rule, i) => ({
      outcome: [i],
      name: term(rule.name, [rule.asks, ...rule.reads.map(meanings)]),
    }));
    const last = [
      { outcome: [OTHER_RULE], name: "another version's rule", optional: true },
      { outcome: [FAILED], name: term("failed", "No rule decided: something broke. No threshold changes that.", "span") },
      { outcome: [WOULD_PASS, UNKNOWN], name: term("to be curated again", "Would come in, or cannot be told: both need a new run. `faceloom what-if` calls them unknown.", "span"), kind: "unknown" },
      { outcome: [KEPT], name: "kept", kind: "kept" },
    ];
    this.rows = [...rows, ...last].filter(({ outcome, optional }) => !optional || decider.strata.some(({ now }) => outcome.includes(now)));
    for (const row of this.rows) {
      row.left = svg("rect", { class: "left", height: 10 });
      row.lost = svg("rect", { class: row.kind ?? "lost", height: 10 });
      row.cells = [h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "number change" })];
      row.element = h("tr", { class: row.kind },
        h("th", { scope: "row" }, row.name),
        h("td", { class: "bar" }, svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, row.left, row.lost)),
        row.cells);
    }
    this.element = h("table", { class: "funnel" },
      h("caption", {}, "Rules in order of cost; the first that fails decides. Bars: clips left, and of them those the rule rejects."),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "rejected by"), h("td", { class: "bar" }), ["now", "then", "change"].map((name) => h("th", { scope: "col", class: "number" }, name)))),
      h("tbody", {}, this.rows.map(({ element }) => element)));
  }

  update(chosen) {
    const all = this.decider.countNow(() => true, chosen) || 1;
    let left = all;
    for (const { outcome, kind, cells, left: rest, lost, element } of this.rows) {
      const meets = (found) => outcome.includes(found);
      const now = this.decider.countNow(meets, chosen);
      const then = this.decider.count(() => true, meets, chosen);
      const [nowCell, thenCell, changeCell] = cells;
      nowCell.textContent = whole.format(now);
      thenCell.textContent = counted(then);
      thenCell.title = errorOf(then);
      const change = rounded(then.count - now, then);
      changeCell.textContent = change ? `${change > 0 ? "+" : "−"}${whole.format(Math.abs(change))}` : "";
      element.classList.toggle("idle", !now && !then.count);
      const share = (n) => (100 * Math.max(0, n)) / all;
      const start = kind ? 0 : left - then.count;
      rest.setAttribute("width", kind ? 0 : share(start));
      lost.setAttribute("x", share(start));
      lost.setAttribute("width", share(then.count));
      if (!kind) left -= then.count;
    }
  }
}
