// A curve over the frames of a video, with a cursor at the frame that is shown.

const CHART = { width: 1000, height: 120, pad: 6 };

class Chart {
  constructor({ title, unit, curves }, frames, onseek) {
    this.frames = frames;
    this.curves = Object.entries(curves);
    const known = this.curves.flatMap(([, values]) => values).filter((value) => value !== null);
    this.low = Math.min(0, ...known);
    this.high = Math.max(...known, this.low + 1e-9);
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: CHART.height });
    this.readouts = this.curves.map(([name]) => h("output", { class: `of ${name}` }));
    const lines = this.curves.flatMap(([name, values]) => this.pieces(values).map((points) =>
      points.length > 1
        ? svg("polyline", { class: `curve ${name}`, points: points.map((point) => point.join(",")).join(" ") })
        : svg("circle", { class: `dot ${name}`, cx: points[0][0], cy: points[0][1], r: 2 })));
    const zero = this.low < 0 ? svg("line", { class: "axis", x1: 0, x2: CHART.width, y1: this.y(0), y2: this.y(0) }) : null;
    this.drawing = svg("svg", {
      viewBox: `0 0 ${CHART.width} ${CHART.height}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${title} over ${frames} frames`,
    }, zero, lines, this.cursor);
    const seek = (event) => {
      const place = this.drawing.getBoundingClientRect();
      onseek(Math.round(((event.clientX - place.left) / place.width) * Math.max(1, frames - 1)));
    };
    this.drawing.addEventListener("pointerdown", (event) => { this.drawing.setPointerCapture(event.pointerId); seek(event); });
    this.drawing.addEventListener("pointermove", (event) => { if (event.buttons) seek(event); });
    this.element = h("figure", { class: "chart" },
      h("figcaption", {}, h("strong", {}, title), h("span", { class: "unit" }, unit),
        this.curves.map(([name], i) => h("span", { class: `key ${name}` }, name, this.readouts[i]))),
      this.drawing,
      h("p", { class: "scale" }, known.length ? `${formatted(this.low)} to ${formatted(this.high)}` : "no value in any frame"));
    this.move(0);
  }

  x(frame) { return (frame / Math.max(1, this.frames - 1)) * CHART.width; }

  y(value) {
    return CHART.height - CHART.pad - ((value - this.low) / (this.high - this.low)) * (CHART.height - 2 * CHART.pad);
  }

  // Stretches of frames that have a value: where a face was not found, there is no line.
  pieces(values) {
    const pieces = [];
    let open = null;
    values.forEach((value, frame) => {
      if (value === null) { open = null; return; }
      if (!open) pieces.push(open = []);
      open.push([this.x(frame).toFixed(1), this.y(value).toFixed(1)]);
    });
    return pieces;
  }

  move(frame) {
    const x = this.x(frame).toFixed(1);
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    this.curves.forEach(([, values], i) => { this.readouts[i].textContent = formatted(values[frame]); });
  }
}
