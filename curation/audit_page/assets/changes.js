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
