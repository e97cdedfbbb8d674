/* Three small charts over one stretch of time, drawn as SVG. */

import { html, keyed, setAttribute, setText, svg } from "./dom.js";
import * as format from "./format.js";
import {
  figures, masterChanges, nearest, pieces, timesWithout, WINDOW,
} from "./series.js";

const HEIGHT = 156;
const PLOT = { left: 58, right: 10, top: 20, bottom: 22 };
const LABEL = 6.2; // the width of a letter of the small labels, about

/* Lines differ in their dashes and in the shapes at their ends, not only in colour. */
const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "4 4"];
const ENDS = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-3.5-3.5h7v7h-7z", "M0-4.5L4.5 3.5h-9z",
  "M0-5L5 0L0 5L-5 0z", "M-4-4L4 4M4-4L-4 4",
];

/** The smallest of 1, 2, 4, 5, 10 times a power of ten that is not below `value`. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].find((step) => step * power >= value * 0.999) * power;
}

function niceBytes(value) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(value) / Math.log(1024)));
  return nice(value / unit) * unit;
}

const SPECS = [
  { name: "writes", title: "Writes", words: "writes per second", show: format.rate, floor: 10,
    top: nice, exact: "writes per second", lines: () => [["writes", (s) => s.writes]] },
  { name: "lag", title: "Lag of the replicas", words: "lag", show: format.bytes, floor: 100,
    top: niceBytes, exact: "bytes",
    lines: (samples) => replicas(samples).map((node) => [node, (s) => s.lag?.[node] ?? null]) },
  { name: "latency", title: "Latency", words: "the master's answer", show: format.duration,
    floor: 0.001, top: nice, exact: "s", lines: () => [["latency", (s) => s.latency]] },
];

function replicas(samples) {
  return [...new Set(samples.flatMap((sample) => Object.keys(sample.lag || {})))].sort();
}

export class Charts {
  /** Charts in `place`; nothing is shown before `show` is called. */
  constructor(place) {
    this.samples = [];
    this.period = 1;
    this.cursor = null; // a time, while somebody points at one
    this.charts = SPECS.map((spec) => new Chart(spec, this));
    this.changes = html("p", { class: "changes" });
    place.before(this.changes);
    place.append(...this.charts.map((chart) => chart.figure));
    new ResizeObserver(() => this.draw()).observe(place);
  }

  show(samples, period) {
    this.samples = samples;
    this.period = period;
    this.draw();
  }

  point(at) {
    this.cursor = at;
    this.draw();
  }

  draw() {
    if (!this.samples.length) return;
    const changes = masterChanges(this.samples);
    setText(this.changes, changeWords(changes));
    for (const chart of this.charts) chart.draw(changes);
  }
}

class Chart {
  constructor(spec, all) {
    this.spec = spec;
    this.all = all;
    this.styles = new Map(); // of each line: a number, kept as long as the page is open
    this.svg = svg("svg", { role: "img", "aria-label": `${spec.title}: no data yet` });
    this.slider = html("div", {
      class: "slider", role: "slider", tabindex: "0", "aria-label": `${spec.title}, at`,
      "aria-valuemin": "0", "aria-valuemax": "0", "aria-valuenow": "0",
      "aria-valuetext": "no data yet",
    });
    this.legend = html("ul", { class: "legend" });
    this.readout = html("p", { class: "readout" });
    this.summary = html("p", { class: "summary" }, "No data yet.");
    this.figure = html("figure", { class: "card chart", id: `chart-${spec.name}` },
      html("figcaption", {}, html("h3", {}, spec.title), this.readout),
      html("div", { class: "plot" }, this.svg, this.slider), this.legend, this.summary);
    this.listen();
  }

  listen() {
    const { slider, all } = this;
    const pointed = (event) => {
      const box = slider.getBoundingClientRect();
      const share = (event.clientX - box.left) / Math.max(1, box.width);
      const end = this.end();
      if (all.samples.length) all.point(nearest(all.samples, end - WINDOW * (1 - share)).at);
    };
    slider.addEventListener("pointermove", pointed);
    slider.addEventListener("pointerdown", pointed);
    slider.addEventListener("pointerleave", () => all.point(null));
    slider.addEventListener("blur", () => all.point(null));
    slider.addEventListener("keydown", (event) => {
      const last = all.samples.length - 1;
      const here = all.cursor === null ? last : this.index();
      const to = {
        ArrowLeft: here - 1, ArrowDown: here - 1, ArrowRight: here + 1, ArrowUp: here + 1,
        PageDown: here - 10, PageUp: here + 10, Home: 0, End: last,
      }[event.key];
      if (event.key === "Escape") all.point(null);
      else if (to !== undefined && last >= 0) {
        event.preventDefault();
        all.point(all.samples[Math.min(last, Math.max(0, to))].at);
      }
    });
  }

  end() {
    return this.all.samples[this.all.samples.length - 1]?.at ?? 0;
  }

  index() {
    return this.all.samples.indexOf(nearest(this.all.samples, this.all.cursor ?? this.end()));
  }

  style(name) {
    if (!this.styles.has(name)) this.styles.set(name, this.styles.size % DASHES.length);
    return this.styles.get(name);
  }

  draw(changes) {
    const { samples } = this.all;
    const lines = this.spec.lines(samples).map(([name, valueOf]) => ({
      name, valueOf, style: this.style(name), figures: figures(samples, valueOf),
    }));
    this.drawPlot(lines, changes);
    this.write(lines, changes);
  }

  drawPlot(lines, changes) {
    const { samples, period, cursor } = this.all;
    const width = Math.max(220, this.slider.parentElement.clientWidth);
    const end = this.end();
    const bottom = HEIGHT - PLOT.bottom;
    const most = Math.max(this.spec.floor, ...lines.map((line) => line.figures?.most ?? 0));
    const top = this.spec.top(most);
    const x = (at) => width - PLOT.right -
      ((end - at) / WINDOW) * (width - PLOT.left - PLOT.right);
    const y = (value) => bottom - (value / top) * (bottom - PLOT.top);
    const pattern = `hatch-${this.spec.name}`;
    const parts = [hatch(pattern)];

    for (const [from, to] of timesWithout(samples)) {
      parts.push(svg("rect", {
        class: "without", fill: `url(#${pattern})`, x: x(from), y: PLOT.top,
        width: Math.max(1, x(to) - x(from)), height: bottom - PLOT.top,
      }, svg("title", {}, `no master from ${format.time(from)} to ${format.time(to)}`)));
    }
    for (const value of [0, top / 2, top]) {
      parts.push(
        svg("line", { class: "grid", x1: PLOT.left, x2: width - PLOT.right,
          y1: y(value), y2: y(value) }),
        svg("text", { class: "tick", x: PLOT.left - 6, y: y(value) + 4, "text-anchor": "end" },
          this.spec.show(value)));
    }
    const step = width < 300 ? 120 : 60;
    for (let at = Math.ceil((end - WINDOW) / step) * step; at <= end; at += step) {
      parts.push(
        svg("line", { class: "grid", x1: x(at), x2: x(at), y1: bottom, y2: bottom + 4 }),
        svg("text", { class: "tick", x: x(at), y: HEIGHT - 5, "text-anchor": "middle" },
          format.minutes(at)));
    }
    parts.push(...markers(changes, x, width, bottom));
    for (const line of lines) {
      parts.push(svg("path", {
        class: `line line-${line.style}`, "stroke-dasharray": DASHES[line.style],
        d: pieces(samples, line.valueOf, period).map((piece) => path(piece, x, y)).join(""),
      }));
    }
    const shown = samples[this.index()];
    if (cursor !== null && shown) {
      parts.push(svg("line", { class: "cursor", x1: x(shown.at), x2: x(shown.at),
        y1: PLOT.top, y2: bottom }));
    }
    for (const line of lines) {
      const value = shown ? line.valueOf(shown) : null;
      if (value === null || value === undefined) continue;
      parts.push(svg("path", { class: `end line-${line.style}`, d: ENDS[line.style],
        transform: `translate(${x(shown.at)} ${y(value)})` }));
    }
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    setAttribute(this.svg, "height", String(HEIGHT));
    this.svg.replaceChildren(...parts);
  }

  write(lines, changes) {
    const { samples, cursor } = this.all;
    const { show, exact } = this.spec;
    const at = this.index();
    const sample = samples[at];
    const single = lines.length === 1 && this.spec.name !== "lag";
    // A master has no lag.
    const value = (line) => (!single && line.name === sample.master
      ? "master" : show(line.valueOf(sample) ?? null));
    const said = lines.map((line) => (single ? value(line) : `${line.name} ${value(line)}`))
      .join(", ") || "no replicas";
    const master = sample.master ? "" : ", no master";
    setText(this.readout, `${format.time(sample.at)}${single ? `: ${said}` : ""}${master}`);
    setAttribute(this.readout, "title", lines.map((line) =>
      `${single ? "" : `${line.name}: `}${format.exact(line.valueOf(sample), exact)}`).join("\n"));
    setAttribute(this.slider, "aria-valuemax", String(samples.length - 1));
    setAttribute(this.slider, "aria-valuenow", String(at));
    // A screen reader is told what was asked for, not each new sample.
    if (cursor !== null || document.activeElement !== this.slider) {
      setAttribute(this.slider, "aria-valuetext", `${format.timeWithZone(sample.at)}: ${said}${
        master}`);
    }

    this.legend.hidden = single;
    keyed(this.legend, single ? [] : lines, (line) => line.name, (line) => html("li", {},
      key(line.style), html("span", { class: "name" }, line.name), html("span")),
    (li, line) => {
      setText(li.lastElementChild, value(line));
    });

    const words = summary(this.spec, lines, single);
    setText(this.summary, words);
    setAttribute(this.svg, "aria-label",
      `${this.spec.title} over the last 5 minutes. ${words} ${changeWords(changes)}`);
  }
}

function summary({ show, words }, lines, single) {
  const said = lines.filter((line) => single || line.figures).map(({ name, figures: found }) => {
    const subject = single ? "" : `${name}: `;
    if (!found) return `${subject}nothing known.`;
    return `${subject}${show(found.least)} to ${show(found.most)}, ${show(found.mean)} on average.`;
  });
  return said.join(" ") || `No ${words} is known.`;
}

function changeWords(changes) {
  const said = changes.slice(-3).map(({ at, old, new: now }) =>
    `The master changed at ${format.timeWithZone(at)} from ${old} to ${now}.`);
  return said.join(" ") || "The master did not change.";
}

function path(piece, x, y) {
  const points = piece.map(([at, value]) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
  return `M${points.join("L")}${points.length === 1 ? "h.1" : ""}`;
}

/** A rule with a triangle at each change of the master, with its name where there is room. */
function markers(changes, x, width, bottom) {
  const shown = changes.filter((change) => x(change.at) >= PLOT.left);
  let free = width; // right of this another label or triangle stands
  const parts = shown.map((change, i) => ({ change, at: x(change.at), i })).reverse();
  return parts.map(({ change, at, i }) => {
    const label = `→ ${change.new}`;
    const room = label.length * LABEL + 10;
    const before = i > 0 ? x(shown[i - 1].at) + 8 : 0;
    const right = at + room <= free;
    const left = !right && at - room >= before && at <= free;
    free = left ? at - room : at - 8;
    const group = svg("g", { class: "change" },
      svg("title", {}, `${format.time(change.at)}: ${change.old} → ${change.new}`),
      svg("line", { x1: at, x2: at, y1: PLOT.top - 6, y2: bottom }),
      svg("path", { d: `M${at - 5} ${PLOT.top - 12}h10l-5 8z` }));
    if (right || left) {
      group.append(svg("text", { x: left ? at - 8 : at + 8, y: PLOT.top - 6,
        "text-anchor": left ? "end" : "start" }, label));
    }
    return group;
  });
}

function hatch(id) {
  return svg("defs", {}, svg("pattern", {
    id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)",
  }, svg("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 })));
}

/** The piece of a line that stands in the legend. */
function key(style) {
  return svg("svg", { class: "key", width: 34, height: 12, "aria-hidden": "true" },
    svg("path", { class: `line line-${style}`, d: "M1 6H33",
      "stroke-dasharray": DASHES[style] }),
    svg("path", { class: `end line-${style}`, d: ENDS[style], transform: "translate(17 6)" }));
}
