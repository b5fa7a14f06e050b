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
        h("h3", {}, h("label", { for: id }, control.path.split(".").flatMap((word, i) => (i ? [h("wbr"), `.${word}`] : [word])))),
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
      this.update(); // a slider ends on values that the configuration may refuse
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
