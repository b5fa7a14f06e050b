// The rules asked again of every packed row, as curation/what_if.py and curation/redecide.py ask them.

// What becomes of a row is a number: the position of the rule that rejects it or, from the number of rules on, one of these.
// WOULD_PASS and UNKNOWN are both "unknown" to `faceloom what-if`: no rule speaks against a clip that has no sample.
function outcomesAfter(rules) {
  return { KEPT: rules, WOULD_PASS: rules + 1, UNKNOWN: rules + 2, OTHER_RULE: rules + 3, FAILED: rules + 4, count: rules + 5 };
}

class Decider {
  constructor(contents, columns) {
    this.rules = contents.rules.map((rule) => ({
      ...rule,
      settings: [...settingsIn(rule.value), ...settingsIn(rule.threshold)],
      breaks: null,
      asked: null,
    }));
    this.measurements = contents.controls.filter(({ effect }) => effect === "measurement");
    this.recorded = new Map(contents.packed.statistics.map((name, i) => [name, columns[i]]));
    this.needed = contents.packed.needed;
    this.rows = contents.packed.rows;
    this.otherVersion = contents.otherwise > 0;
    this.outcomes = outcomesAfter(this.rules.length);
    let start = 0;
    this.strata = contents.strata.map((stratum) => {
      const placed = { ...stratum, start, stop: start + stratum.rows, now: this.#now(stratum) };
      start = placed.stop;
      return placed;
    });
    this.firstExample = start;
    this.examplesKept = contents.examples.map((example) => example.rule < 0);
    this.wasKept = new Uint8Array(this.rows);
    for (const { start: from, stop, now } of this.strata) this.wasKept.fill(now === this.outcomes.KEPT ? 1 : 0, from, stop);
    this.examplesKept.forEach((kept, k) => { this.wasKept[this.firstExample + k] = kept ? 1 : 0; });
    this.then = new Uint8Array(this.rows);
  }

  #now({ outcome, rule }) {
    const { KEPT, UNKNOWN, FAILED, OTHER_RULE } = this.outcomes;
    if (outcome !== "rejected") return { kept: KEPT, unknown: UNKNOWN, failed: FAILED }[outcome];
    return rule < 0 ? OTHER_RULE : rule;
  }

  // Fills `then` for every row and `counts[stratum][outcome]` for the rows of the strata. `base` are the ledger's settings; without
  // another, counts of a sample are no estimates.
  decide(settings, base) {
    const { KEPT, count } = this.outcomes;
    const { then, rows } = this;
    const moved = new Set(Object.keys(base).filter((path) => settings[path] !== base[path]));
    const fresh = this.#fresh(settings, base);
    this.changed = moved.size > 0;
    this.anew = fresh.stale.size > 0;
    this.touched = this.rules.map((rule) => this.otherVersion || rule.settings.some((path) => moved.has(path)) || rule.reads.some((name) => fresh.stale.has(name)));
    then.fill(this.rules.length);
    for (let r = this.rules.length - 1; r >= 0; r--) {
      const breaks = this.#breaks(this.rules[r], settings, fresh);
      for (let i = 0; i < rows; i++) if (breaks[i]) then[i] = r;
    }
    const needed = this.needed.map((name) => fresh.columns.get(name));
    for (let i = 0; i < rows; i++) {
      if (then[i] === KEPT && !fresh.kept[i]) then[i] = this.#withoutSample(needed, i);
    }
    this.counts = this.strata.map(({ start, stop }) => {
      const found = new Uint32Array(count);
      for (let i = start; i < stop; i++) found[then[i]]++;
      return found;
    });
    this.otherWindows = this.#otherWindows(settings, base, fresh);
  }

  // In each stratum the rows that are rejected for their window, while the clip has further windows that may pass, of which the
  // ledger holds nothing. That none passed is known of a clip that was rejected so, unless a rule about windows now asks for less.
  #otherWindows(settings, base, fresh) {
    const about = this.rules.map(({ stage }) => stage === "window");
    const windows = fresh.columns.get("windows");
    if (!this.changed || !windows) return this.strata.map(() => 0);
    const room = ({ value, threshold, at_most }, under) => {
      const sides = [threshold, value].map((side) => valueOf(side, fresh.columns, under, this.rows));
      return pairwise(OPERATIONS["-"], ...(at_most ? sides : sides.reverse()), this.rows);
    };
    const less = this.rules.some((rule, r) => {
      if (!about[r] || !rule.settings.some((path) => settings[path] !== base[path])) return false;
      const [before, now] = [room(rule, base), room(rule, settings)];
      if (typeof now === "number") return now > before;
      return now.some((x, i) => x > (typeof before === "number" ? before : before[i]));
    });
    return this.strata.map(({ start, stop, now }) => {
      if (about[now] && !less) return 0;
      let hits = 0;
      for (let i = start; i < stop; i++) if (about[this.then[i]] && windows[i] > 1) hits++;
      return hits;
    });
  }

  #withoutSample(needed, i) {
    for (const column of needed) if (column[i] !== column[i]) return this.outcomes.UNKNOWN;
    return this.outcomes.WOULD_PASS;
  }

  // The statistics as they are known under these settings, and which rows still have their sample: what a changed setting makes
  // stale counts as not measured.
  #fresh(settings, base) {
    const columns = new Map(this.recorded);
    let kept = this.wasKept;
    const moved = this.measurements.filter(({ path }) => settings[path] !== base[path]);
    const gone = new Set();
    for (const { stale, only } of moved) {
      const holds = [base, settings].map((under) => (only === null ? 1 : valueOf(only, this.recorded, under, this.rows)));
      const affected = (i) => holds.some((held) => (typeof held === "number" ? held : held[i]) === 1);
      if (!stale.length) continue;
      const anew = stale.filter((name) => columns.has(name));
      stale.forEach((name) => gone.add(name));
      for (const name of anew) columns.set(name, columns.get(name).slice());
      kept = kept.slice();
      const touched = anew.map((name) => columns.get(name));
      for (let i = 0; i < this.rows; i++) {
        if (!affected(i)) continue;
        kept[i] = 0;
        for (const column of touched) column[i] = NaN;
      }
    }
    return { columns, kept, stale: gone, by: moved.map(({ path }) => [path, settings[path]]) };
  }

  // Which rows break a rule; worked out again only when something that it reads has changed.
  #breaks(rule, settings, fresh) {
    const asked = JSON.stringify([fresh.by, rule.settings.map((path) => settings[path])]);
    if (rule.asked === asked) return rule.breaks;
    const value = valueOf(rule.value, fresh.columns, settings, this.rows);
    const limit = valueOf(rule.threshold, fresh.columns, settings, this.rows);
    const breaks = rule.breaks ?? new Uint8Array(this.rows);
    for (let i = 0; i < this.rows; i++) {
      const v = typeof value === "number" ? value : value[i];
      const t = typeof limit === "number" ? limit : limit[i];
      breaks[i] = (rule.at_most ? v > t : v < t) ? 1 : 0;
    }
    rule.breaks = breaks;
    rule.asked = asked;
    return breaks;
  }

  // Whether a row that meets `now` today can meet `then`: only a rule that is touched decides otherwise than it did.
  #possible(now, then) {
    const { KEPT, WOULD_PASS, UNKNOWN } = this.outcomes;
    if (then === now) return true;
    if (then === KEPT) return false;
    const passes = now >= KEPT || this.touched[now];
    if (then === WOULD_PASS || then === UNKNOWN) return passes && (now !== KEPT || this.anew);
    return then < now ? Boolean(this.touched[then]) : passes;
  }

  // Whether the rows of a stratum can be decided otherwise than they were.
  #loose({ now }) {
    const first = this.touched.indexOf(true);
    return (first >= 0 && first <= now) || (now === this.outcomes.KEPT && this.anew);
  }

  // How many of the rows that meet `now` today meet `then`, as { count, error, exact }; error is the half width of a 95 % interval.
  count(now, then, chosen = (stratum) => !stratum.further) {
    return this.#estimate((stratum, h) => {
      if (!now(stratum.now) || !chosen(stratum)) return 0;
      if (stratum.now === this.outcomes.FAILED) return then(stratum.now) ? stratum.size : 0;
      let hits = 0;
      this.counts[h].forEach((n, outcome) => { if (then(outcome)) hits += n; });
      return hits;
    }, (stratum) => now(stratum.now) && chosen(stratum) && this.counts[0].some((_, outcome) => then(outcome) && this.#possible(stratum.now, outcome)));
  }

  countOtherWindows(chosen) {
    return this.#estimate((stratum, h) => (chosen(stratum) ? this.otherWindows[h] : 0), chosen);
  }

  // `hitsIn(stratum)` are hits among its packed rows; `concerned(stratum)` says whether it can have any.
  #estimate(hitsIn, concerned) {
    let total = 0, variance = 0, exact = true;
    this.strata.forEach((stratum, h) => {
      const hits = hitsIn(stratum, h);
      if (stratum.now === this.outcomes.FAILED) {
        total += hits;
        return;
      }
      total += (hits * stratum.size) / stratum.rows;
      if (stratum.rows < stratum.size && this.#loose(stratum) && concerned(stratum)) {
        const share = hits / stratum.rows;
        exact = false;
        variance += (stratum.size ** 2 * (1 - stratum.rows / stratum.size) * share * (1 - share)) / Math.max(1, stratum.rows - 1);
      }
    });
    return { count: Math.round(total), error: 1.96 * Math.sqrt(variance), exact };
  }

  // How many rows meet `now` today: counted over all rows of the ledger.
  countNow(now, chosen = (stratum) => !stratum.further) {
    return this.strata.reduce((sum, stratum) => sum + (now(stratum.now) && chosen(stratum) ? stratum.size : 0), 0);
  }

  // The first packed rows that go from `now` to `then`.
  find(now, then, chosen, most) {
    const found = [];
    for (const stratum of this.strata) {
      if (!now(stratum.now) || !chosen(stratum)) continue;
      for (let i = stratum.start; i < stratum.stop; i++) {
        if (!then(this.then[i])) continue;
        if (found.length === most) return found;
        found.push(i);
      }
    }
    return found;
  }
}
