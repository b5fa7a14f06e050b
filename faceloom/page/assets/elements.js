// Elements made from data: every text goes in as a text node, never as markup.

function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const whole = new Intl.NumberFormat("en");
const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });

function formatted(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return new Intl.NumberFormat("en", { maximumSignificantDigits: 4, useGrouping: Math.abs(value) >= 10000 }).format(value);
}

// An estimate is rounded to the digits that its error leaves it.
function rounded(number, { error, exact }) {
  const unit = exact ? 1 : 10 ** Math.max(0, Math.floor(Math.log10(Math.max(error, 1))));
  return Math.round(number / unit) * unit;
}

function counted(found) {
  return `${found.exact ? "" : "≈ "}${whole.format(rounded(found.count, found))}`;
}

function errorOf({ error, exact }) {
  if (exact || error < 0.5) return "";
  const unit = 10 ** Math.max(0, Math.floor(Math.log10(error)) - 1);
  return `± ${whole.format(Math.ceil(error / unit) * unit)}`;
}

// A word with an explanation, shown while the pointer or the focus is on it.
function term(text, explanation, kind = "code") {
  const element = h(kind, { class: "term", tabindex: "0" }, text);
  const show = () => tip.show(element, explanation);
  element.addEventListener("pointerenter", show);
  element.addEventListener("focus", show);
  element.addEventListener("pointerleave", () => tip.hide());
  element.addEventListener("blur", () => tip.hide());
  return element;
}

const tip = {
  box: h("div", { role: "tooltip", id: "tip", hidden: true }),
  of: null,
  show(element, lines) {
    this.hide();
    this.box.replaceChildren(...[lines].flat().map((line) => h("p", {}, line)));
    this.box.hidden = false;
    this.of = element;
    element.setAttribute("aria-describedby", "tip");
    this.place();
  },
  place() {
    const place = this.of.getBoundingClientRect();
    const size = this.box.getBoundingClientRect();
    const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - size.width - 8));
    const below = place.bottom + 6 + size.height < window.innerHeight;
    this.box.style.left = `${left}px`;
    this.box.style.top = `${below ? place.bottom + 6 : Math.max(4, place.top - size.height - 6)}px`;
  },
  hide() {
    this.box.hidden = true;
    this.of?.removeAttribute("aria-describedby");
    this.of = null;
  },
};
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hide(); });
// What the focus is on may just have been scrolled into sight; under the pointer lies something else now.
document.addEventListener("scroll", () => {
  if (tip.of && tip.of === document.activeElement) tip.place();
  else tip.hide();
}, { passive: true, capture: true });

function table(headings, rows, options = {}) {
  const head = headings.map((heading) => h("th", { scope: "col", class: heading.number ? "number" : null }, heading.text));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, i) => h(i ? "td" : "th", { scope: i ? null : "row", class: headings[i].number ? "number" : null }, cell))),
  );
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.label },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}
