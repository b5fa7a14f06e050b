// The parts of the page. Each is made once; what depends on the settings has an `update`.

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
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "rejected by"), h("td", {}), ["now", "then", "change"].map((name) => h("th", { scope: "col", class: "number" }, name)))),
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

// A setting: its slider and number, above them what it bounds.
class Card {
  constructor(control, contents, state) {
    this.control = control;
    this.state = state;
    this.charts = control.charts.map((i) => new Chart(contents.charts[i], control.path));
    const id = control.path.replace(".", "-");
    this.inputs = this.#inputs(id);
    const rules = control.rules.map((i) => contents.rules[i]);
    this.limits = this.charts.map(() => h("output", { class: "limits" }));
    const charts = this.charts.map((chart, k) => {
      const { title, unit, meaning } = chart.data;
      const drawn = h("div", { class: k ? "small" : "first" },
        h("p", { class: "statistic" }, term(title, meaning), h("span", { class: "unit" }, unit), this.limits[k]), chart.element);
      if (k === 0 && this.inputs.slider) drawn.append(this.inputs.slider);
      return drawn;
    });
    if (!charts.length && this.inputs.slider) charts.push(h("div", { class: "first" }, this.inputs.slider));
    const [first, ...more] = charts;
    this.element = h("article", { class: "card", id: `card-${id}` },
      h("header", {},
        h("h3", {}, h("label", { for: id }, control.path)),
        this.inputs.field),
      h("p", { class: "rules" }, rules.length > 1 ? "rules " : "rule ", rules.flatMap((rule, i) => [i ? ", " : "", term(rule.name, rule.asks)])),
      control.effect === "threshold" ? null : h("p", { class: "rules" }, control.why),
      first,
      more.length ? h("details", {}, h("summary", {}, `${more.length} more ${more.length > 1 ? "statistics" : "statistic"} that it bounds`), more) : null);
  }

  #inputs(id) {
    const { kind, path, words, low, high, step } = this.control;
    const set = (value) => { if (value !== undefined) this.state.set(path, value); };
    if (kind === "word" || kind === "switch") {
      const field = h("select", { id, onchange: () => set(parsed(this.control, field.value)) },
        (words ?? ["true", "false"]).map((word) => h("option", { value: word }, word)));
      return { field };
    }
    const field = h("input", { id, type: "number", step: "any", required: !this.control.optional, oninput: () => {
      const value = parsed(this.control, field.value);
      field.setAttribute("aria-invalid", String(value === undefined));
      set(value);
    }, onblur: () => this.update() });
    const slider = h("input", { type: "range", min: low, max: high, step, "aria-label": path, oninput: () => {
      const value = Number(slider.value), base = this.state.base[path];
      // The ledger's own value need not be a step of the slider; its place on it means the value itself.
      const same = base !== null && Math.abs(value - base) < 0.5 * step;
      set(parsed(this.control, String(same ? base : value)));
    } });
    return { field, slider };
  }

  update() {
    const { field, slider } = this.inputs;
    const value = this.state.settings[this.control.path];
    const text = value === null ? "" : typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
    if (document.activeElement !== field) {
      field.value = text;
      field.title = value === null ? "" : String(value);
      field.removeAttribute("aria-invalid");
    }
    if (slider && Number(slider.value) !== value) slider.value = value ?? slider.min;
    slider?.setAttribute("aria-valuetext", text);
    this.element.classList.toggle("changed", value !== this.state.base[this.control.path]);
    this.charts.forEach((chart, k) => {
      const limits = chart.move(this.state.settings);
      const own = limits.map((limit, i) => chart.own[i] && `${chart.data.limits[i].at_most ? "≤" : "≥"} ${formatted(limit)}`);
      this.limits[k].textContent = [...new Set(own)].filter(Boolean).join(", ");
    });
  }
}

// The clips that the settings move, as far as they are in the page, and how to have them decided so.
class Changes {
  constructor(contents, decider, state) {
    this.contents = contents;
    this.decider = decider;
    this.state = state;
    const list = (title) => {
      const made = { count: h("span", { class: "count" }), items: h("ol", {}) };
      made.element = h("section", { class: "list" }, h("h3", {}, title, " ", made.count), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `clips that ${title}` }, made.items));
      return made;
    };
    this.lists = { out: list("go out"), in: list("would come in"), unknown: list("have to be recomputed") };
    this.others = h("output", {});
    this.line = h("input", { type: "text", readonly: true, "aria-label": "Command that gives the same counts" });
    this.copied = h("span", { role: "status" });
    this.yaml = h("pre", { tabindex: "0", "aria-label": "Configuration" });
    this.download = h("a", { class: "button", download: "audit.yaml" }, "Download audit.yaml");
    this.element = h("div", { class: "changes" },
      h("h2", {}, "What would change"),
      h("div", { class: "lists" }, Object.values(this.lists).map(({ element }) => element)),
      h("p", { class: "others" }, this.others),
      h("h3", {}, "Take these thresholds along"),
      h("div", { class: "config" },
        h("div", {},
          h("p", {}, "The same counts on the command line:"),
          h("p", { class: "copy" }, this.line, h("button", { type: "button", onclick: () => this.#copy() }, "Copy"), this.copied),
          h("p", {}, "As a configuration for ", h("code", {}, "faceloom curate --config audit.yaml"), ", with what the ledger's own configuration has beside the defaults:"),
          h("p", {}, this.download)),
        this.yaml));
  }

  async #copy() {
    this.line.select();
    try {
      await navigator.clipboard.writeText(this.line.value);
      this.copied.textContent = "Copied.";
    } catch {
      this.copied.textContent = "Selected: press Ctrl+C.";
    }
    setTimeout(() => { this.copied.textContent = ""; }, 3000);
  }

  async update(changed, chosen) {
    const line = this.state.setLine();
    this.line.value = `faceloom what-if ${this.state.command}${line && ` ${line}`}`;
    const fragment = this.state.fragment();
    this.yaml.textContent = fragment;
    this.download.href = `data:text/yaml;charset=utf-8,${encodeURIComponent(fragment)}`;

    const others = this.decider.countOtherWindows(chosen);
    this.others.textContent = others.count
      ? `${counted(others)} rejected clips have further windows, of which the ledger holds nothing and one may pass.`
      : "";
    const { KEPT, WOULD_PASS, UNKNOWN } = this.decider.outcomes;
    const kinds = {
      out: [(now) => now === KEPT, (then) => then < KEPT],
      in: [() => true, (then) => then === WOULD_PASS],
      unknown: [() => true, (then) => then === UNKNOWN],
    };
    const found = Object.entries(kinds).map(([name, [now, then]]) => {
      this.lists[name].count.textContent = counted(this.decider.count(now, then, chosen));
      return [name, this.decider.find(now, then, chosen, LISTED)];
    });
    if (found.some(([, rows]) => rows.length)) this.texts ??= await unpackJson(this.contents.packed.texts);
    for (const [name, rows] of found) {
      this.lists[name].items.replaceChildren(...rows.map((row) => {
        const rule = this.contents.rules[this.decider.then[row]];
        return h("li", {}, h("span", { class: "source" }, this.texts.sources[row]), " ", h("code", {}, this.texts.clips[row]), rule ? h("span", { class: "why" }, ` ${rule.name}`) : null);
      }));
      if (!rows.length) this.lists[name].items.append(h("li", { class: "nothing" }, changed ? "none" : "move a threshold"));
      if (rows.length === LISTED) this.lists[name].items.append(h("li", { class: "nothing" }, `the first ${LISTED} of them`));
    }
  }
}
const LISTED = 50;

// Clips to look at: kept ones, then each rule's.
class Examples {
  constructor(contents, decider, meanings) {
    this.decider = decider;
    this.paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.cards = contents.examples.map((example) => this.#card(example, contents.rules));
    this.button = h("button", { type: "button", onclick: () => this.#pauseAll(!this.paused) });
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
