// The head of the page, and the line that says what the settings make of the clips.
// What depends on the settings has an `update`.

function heading(contents, decider) {
  const { KEPT, UNKNOWN, FAILED } = decider.outcomes;
  const all = decider.countNow(() => true);
  const [kept, unknown, failed] = [KEPT, UNKNOWN, FAILED].map((outcome) => decider.countNow((now) => now === outcome));
  const rejected = all - kept - unknown - failed;
  const samples = decider.countNow((now) => now === KEPT, () => true);
  const facts = [
    [whole.format(all), "clips"],
    [whole.format(kept), `kept, ${percent.format(kept / all)}`],
    [whole.format(rejected), `rejected, ${percent.format(rejected / all)}`],
    [whole.format(failed), `failed, ${percent.format(failed / all)}`],
  ];
  if (unknown) facts.push([whole.format(unknown), `to be curated again, ${percent.format(unknown / all)}`]);
  if (samples !== kept) facts.splice(2, 0, [whole.format(samples), "samples, several of some clips"]);
  const notes = [];
  if (!contents.complete) notes.push(`The run is not finished: ${whole.format(all)} of ${whole.format(contents.clips)} clips are decided so far.`);
  if (contents.otherwise) notes.push(`${whole.format(contents.otherwise)} rows were decided by other rules than this version has: “now” is what the ledger says, and “then” what these rules say.`);
  return h("header", { class: "top" },
    h("p", { class: "kind" }, "Faceloom audit"),
    h("h1", {}, contents.name),
    h("p", { class: "provenance" }, `Ledger of ${contents.written} UTC`, " · ", term(`run ${contents.fingerprint.slice(0, 12) || "–"}`, "Fingerprint of the configuration that the clips were curated with.", "span"), ` · Faceloom ${contents.version}`),
    h("dl", { class: "facts" }, facts.map(([number, name]) => h("div", {}, h("dt", {}, name), h("dd", {}, number)))),
    notes.map((note) => h("p", { class: "note" }, note)));
}

// What the settings make of the clips, in one line that stays in sight.
class Verdict {
  constructor(contents, decider, state, datasets) {
    this.decider = decider;
    this.cells = {};
    const cell = (name, label, explanation) => {
      this.cells[name] = [h("output", { class: "count" }), h("span", { class: "error" })];
      return h("div", { class: `cell ${name}` }, term(label, explanation, "span"), h("p", {}, ...this.cells[name]));
    };
    this.now = h("span", { class: "now" });
    const kept = cell("kept", "kept", "Clips that the thresholds below keep. Before the arrow: what the ledger kept.");
    kept.lastChild.prepend(this.now, h("span", { class: "arrow", "aria-hidden": "true" }, "→"));
    this.spoken = h("p", { class: "unseen", role: "status" });
    this.reset = h("button", { type: "button", onclick: () => state.reset() }, "Reset");
    this.element = h("div", { class: "verdict" },
      kept,
      cell("out", "go out", "Kept now; a rule would reject them."),
      cell("in", "would come in", "Rejected now, and measured to the end: no rule would reject them any more. Their samples do not exist yet, so curate them again."),
      cell("unknown", "to be recomputed", "No rule speaks against them, but something is not measured: a rule ended that early, or a changed setting asks for other measurements. Only curating them again can tell."),
      h("div", { class: "tools" }, datasets, this.reset),
      this.spoken);
  }

  update(changed, chosen) {
    const { KEPT, WOULD_PASS, UNKNOWN } = this.decider.outcomes;
    const is = (wanted) => (outcome) => outcome === wanted;
    const any = () => true, rejected = (outcome) => outcome < KEPT;
    const now = this.decider.countNow(is(KEPT), chosen);
    this.now.textContent = whole.format(now);
    const counts = {
      kept: this.decider.count(any, is(KEPT), chosen),
      out: this.decider.count(is(KEPT), rejected, chosen),
      in: this.decider.count(any, is(WOULD_PASS), chosen),
      unknown: this.decider.count(any, is(UNKNOWN), chosen),
    };
    for (const [name, found] of Object.entries(counts)) {
      this.cells[name][0].textContent = counted(found);
      this.cells[name][1].textContent = errorOf(found);
    }
    this.reset.disabled = !changed;
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => {
      this.spoken.textContent = changed
        ? `Kept ${whole.format(now)} now, ${counted(counts.kept)} then; ${counted(counts.out)} go out, ${counted(counts.in)} would come in, ${counted(counts.unknown)} to be recomputed`
        : "";
    }, 600);
  }
}
