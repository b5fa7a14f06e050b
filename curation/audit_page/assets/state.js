// The settings as the reader has them, kept in the address, so that a link can be shared.

class State {
  constructor(contents) {
    this.controls = contents.controls;
    this.base = Object.fromEntries(this.controls.map(({ path, value }) => [path, value]));
    this.ofLedger = contents.config;
    this.command = contents.command;
    this.listeners = [];
    this.read();
    window.addEventListener("hashchange", () => { this.read(); this.#tell(); });
  }

  read() {
    this.settings = { ...this.base };
    for (const [path, text] of new URLSearchParams(location.hash.slice(1))) {
      const control = this.controls.find((one) => one.path === path);
      const value = control && parsed(control, text);
      if (value !== undefined) this.settings[path] = value;
    }
  }

  changed() {
    return this.controls.filter(({ path }) => this.settings[path] !== this.base[path]).map(({ path }) => path);
  }

  set(path, value) {
    if (this.settings[path] === value) return;
    this.settings[path] = value;
    this.#remember();
    this.#tell();
  }

  reset() {
    this.settings = { ...this.base };
    this.#remember();
    this.#tell();
  }

  onChange(listener) { this.listeners.push(listener); }
  #tell() { for (const listener of this.listeners) listener(); }

  // A slider moves more often than browsers let an address change.
  #remember() {
    clearTimeout(this.remembering);
    this.remembering = setTimeout(() => {
      const words = new URLSearchParams(this.changed().map((path) => [path, written(this.settings[path])]));
      history.replaceState(null, "", `#${words}`);
    }, 200);
  }

  // As arguments of `faceloom what-if` on the ledger that this page shows.
  setLine() {
    return this.changed().map((path) => `--set ${path}=${written(this.settings[path])}`).join(" ");
  }

  // As a file for `faceloom curate --config`: what differs from the defaults, in the ledger's configuration or by what was changed here.
  fragment() {
    const tree = structuredClone(this.ofLedger);
    for (const path of this.changed()) {
      const names = path.split(".");
      const leaf = names.pop();
      let node = tree;
      for (const name of names) node = node[name] ??= {};
      node[leaf] = this.settings[path];
    }
    return `curate:${yaml(tree, "  ") || " {}\n"}`;
  }
}

// A setting's value from text; undefined where the configuration would refuse it.
function parsed(control, text) {
  const word = text.trim();
  if (word === "" || word === "null") return control.optional ? null : undefined;
  if (control.kind === "word") return control.words.includes(word) ? word : undefined;
  if (control.kind === "switch") return { true: true, false: false }[word];
  const value = Number(word);
  if (!Number.isFinite(value) || (control.kind === "whole" && !Number.isInteger(value))) return undefined;
  const fits = value >= (control.least ?? -Infinity) && value <= (control.most ?? Infinity) &&
    value > (control.above ?? -Infinity) && value < (control.below ?? Infinity);
  return fits ? value : undefined;
}

// A value in YAML: YAML 1.1 takes 1e-7 for a word, and 1.0e-7 for a number.
function written(value) {
  if (typeof value !== "number") return value === null ? "null" : String(value);
  const text = String(value);
  return text.includes("e") && !text.includes(".") ? text.replace("e", ".0e") : text;
}

function yaml(tree, indent) {
  return Object.entries(tree).map(([name, value]) => {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return `\n${indent}${name}:${yaml(value, `${indent}  `)}`.trimEnd();
    return `\n${indent}${name}: ${typeof value === "number" ? written(value) : JSON.stringify(value)}`;
  }).join("") + (indent.length === 2 && Object.keys(tree).length ? "\n" : "");
}
