/**
 * Draw charts as SVG, for the available width. Charts can be used by keyboard: arrow keys move between items, and
 * Enter opens an item. The text of an item is displayed next to it and announced to screen readers. The style sheet
 * defines the colours.
 */

import { announce, element, svg } from "./dom.js";
import { apart, compact, ticks } from "./numbers.js";
import { axisTicks, bucketEnd, showTick } from "./time.js";

/**
 * @typedef {object} Item
 * @property {number} x the middle
 * @property {number} [y] the position of the item's mark
 * @property {string[]} text its lines
 * @property {() => void} [open]
 */

/**
 * @typedef {object} Drawn
 * @property {SVGElement[]} marks
 * @property {Item[]} items
 * @property {{ left: number, right: number, top: number, bottom: number }} [plot]
 */

/**
 * Return a chart that is redrawn when its width changes.
 *
 * @param {string} label its description for screen readers
 * @param {number} height
 * @param {(width: number) => Drawn} draw
 * @param {((from: number, to: number) => void) | null} [drag] gets two positions, in pixels
 * @returns {HTMLElement}
 */
export function chart(label, height, draw, drag = null) {
  const tip = element("div", { class: "tip", hidden: true });
  const root = element("div", { class: "chart" });
  /** @type {Item[]} */
  let items = [];
  let at = -1;
  let plot = { left: 0, right: 0, top: 0, bottom: height };
  let width = 0;
  /** @type {SVGSVGElement | null} */
  let picture = null;
  /** @type {number | null} */
  let begun = null;

  const show = (/** @type {number} */ index, spoken = false) => {
    const item = items[index];
    at = item ? index : -1;
    picture?.querySelector(".cursor")?.remove();
    tip.hidden = !item;
    if (!item || !picture) return;
    picture.append(svg("line", { class: "cursor", x1: item.x, x2: item.x, y1: plot.top, y2: plot.bottom }));
    tip.replaceChildren(...item.text.map((line) => element("div", {}, line)));
    const half = tip.offsetWidth / 2;
    tip.style.left = `${Math.max(Math.min(item.x, width - half), half)}px`;
    if (spoken) announce(item.text.join(", "));
  };
  const nearest = (/** @type {number} */ x) =>
    items.reduce((best, item, index) => (Math.abs(item.x - x) < Math.abs((items[best]?.x ?? Infinity) - x) ? index : best), 0);
  const position = (/** @type {PointerEvent} */ event) => event.clientX - root.getBoundingClientRect().left;
  const keys = (/** @type {KeyboardEvent} */ event) => {
    const moves = { ArrowRight: at + 1, ArrowLeft: at < 0 ? items.length - 1 : at - 1, Home: 0, End: items.length - 1 };
    const next = moves[/** @type {"Home"} */ (event.key)];
    if (next !== undefined) show(Math.min(Math.max(next, 0), items.length - 1), true);
    else if (event.key === "Enter") items[at]?.open?.();
    else if (event.key === "Escape") show(-1);
    else return;
    event.preventDefault();
  };
  const move = (/** @type {PointerEvent} */ event) => {
    show(nearest(position(event)));
    if (begun === null || !picture) return;
    const [from, to] = [begun, position(event)].sort((one, other) => one - other);
    picture.querySelector(".selection")?.remove();
    picture.append(svg("rect", {
      class: "selection", x: Math.max(/** @type {number} */ (from), plot.left), y: plot.top,
      width: Math.max(Math.min(/** @type {number} */ (to), plot.right) - Math.max(/** @type {number} */ (from), plot.left), 0),
      height: plot.bottom - plot.top,
    }));
  };
  const release = (/** @type {PointerEvent} */ event) => {
    const from = begun;
    begun = null;
    picture?.querySelector(".selection")?.remove();
    const to = position(event);
    if (drag !== null && from !== null && Math.abs(to - from) > 6) drag(Math.min(from, to), Math.max(from, to));
    else items[nearest(to)]?.open?.();
  };
  const redraw = () => {
    const room = Math.floor(root.clientWidth);
    if (room === 0 || room === width) return;
    width = room;
    const drawn = draw(width);
    items = drawn.items;
    plot = drawn.plot ?? { left: 0, right: width, top: 0, bottom: height };
    const next = svg(
      "svg", {
        viewBox: `0 0 ${width} ${height}`, width, height, tabindex: 0, role: "group", "aria-roledescription": "chart",
        "aria-label": `${label}. Arrow keys move between items${items.some((item) => item.open) ? ", Enter opens one" : ""}.`,
        keydown: keys, pointermove: move, pointerleave: () => begun === null && show(-1), blur: () => show(-1),
        pointerdown: (/** @type {PointerEvent} */ event) => {
          if (event.button !== 0) return;
          begun = position(event);
          if (drag !== null) next.setPointerCapture(event.pointerId);
        },
        pointerup: release, pointercancel: () => (begun = null),
      },
      drawn.marks,
    );
    if (drag !== null) next.classList.add("draggable");
    const focused = document.activeElement === picture && picture !== null;
    picture?.remove();
    picture = next;
    root.prepend(next);
    if (focused) next.focus();
  };
  root.append(tip);
  new ResizeObserver(redraw).observe(root);
  return root;
}

/** Return the pattern of failed attempts, which makes them visible without colour. */
export function hatch() {
  return svg("svg", { width: 0, height: 0, "aria-hidden": "true", class: "patterns" }, svg("defs", {}, svg(
    "pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("rect", { class: "hatch-ground", width: 6, height: 6 }), svg("rect", { class: "hatch-line", width: 2.4, height: 6 }),
  )));
}

/** The width of a digit in the labels of an axis. */
const DIGIT = 7.5;

/** @param {number} from @param {number} to @param {number} start @param {number} end */
function scale(from, to, start, end) {
  const span = to - from || 1;
  return (/** @type {number} */ value) => start + ((value - from) / span) * (end - start);
}

/**
 * @param {(value: number) => number} y
 * @param {number[]} values
 * @param {(value: number, digits?: number) => string} format
 * @param {number} left
 * @param {number} right
 * @returns {SVGElement[]}
 */
function gridLines(y, values, format, left, right) {
  const texts = apart(values, format);
  return values.flatMap((value, index) => [
    svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, texts[index] ?? ""),
  ]);
}

/**
 * @param {(time: number) => number} x
 * @param {number} from
 * @param {number} to
 * @param {number} top
 * @param {number} width
 */
function timeAxis(x, from, to, top, width) {
  const { times, step } = axisTicks(from, to, Math.max(Math.floor(width / 105), 1));
  const found = [];
  for (const time of times) {
    const position = x(time);
    if (position < 34 || position > width - 34) continue;
    found.push(svg("line", { class: "axis", x1: position, x2: position, y1: top, y2: top + 4 }));
    found.push(svg("text", { class: "tick", x: position, y: top + 16, "text-anchor": "middle" }, showTick(time, step)));
  }
  return found;
}

/**
 * Draw bars over time: passed, failed, and neither.
 *
 * @param {{ label: string, from: number, to: number, step: number, bars: { time: number, passed: number, failed: number, neither: number, text: string[] }[], zoom: (from: number, to: number) => void }} data
 */
export function timeBars({ label, from, to, step, bars, zoom }) {
  const height = 132;
  /** @type {(x: number) => number} */
  let timeAt = () => from;
  const draw = (/** @type {number} */ width) => {
    const plot = { left: 46, right: width - 6, top: 8, bottom: height - 22 };
    const x = scale(from, to, plot.left, plot.right);
    timeAt = (position) => from + ((position - plot.left) / (plot.right - plot.left)) * (to - from);
    const most = Math.max(1, ...bars.map((bar) => bar.passed + bar.failed + bar.neither));
    const y = scale(0, most, plot.bottom, plot.top);
    /** @type {SVGElement[]} */
    const marks = [
      ...gridLines(y, ticks(0, most, 3).filter(Number.isInteger), compact, plot.left, plot.right),
      ...timeAxis(x, from, to, plot.bottom, width),
    ];
    /** @type {Item[]} */
    const items = [];
    for (const bar of bars) {
      const left = Math.max(x(bar.time), plot.left);
      const end = bucketEnd(bar.time, step);
      const right = Math.min(x(end), plot.right);
      const wide = Math.max(right - left - 1, 1);
      let below = 0;
      for (const kind of /** @type {const} */ (["failed", "passed", "neither"])) {
        const number = bar[kind];
        if (number === 0) continue;
        // A bar has at least two pixels, so that one failure among thousands is visible.
        const high = Math.max(y(below) - y(below + number), kind === "failed" ? 2 : 1);
        marks.push(svg("rect", { class: kind, x: left, y: y(below) - high, width: wide, height: high }));
        below += number;
      }
      items.push({ x: (left + right) / 2, text: bar.text, open: () => zoom(bar.time, end) });
    }
    return { marks, items, plot };
  };
  return chart(label, height, draw, (left, right) => zoom(timeAt(left), timeAt(right)));
}

const SHAPES = ["circle", "square", "diamond", "triangle"];

/** @param {number} index @param {number} x @param {number} y */
function marker(index, x, y) {
  const name = { class: `series-${index % 8} marker` };
  switch (SHAPES[index % 4]) {
    case "square": return svg("rect", { ...name, x: x - 3, y: y - 3, width: 6, height: 6 });
    case "diamond": return svg("path", { ...name, d: `M${x} ${y - 4.4}l4.4 4.4-4.4 4.4-4.4-4.4z` });
    case "triangle": return svg("path", { ...name, d: `M${x} ${y - 4}l4 7h-8z` });
    default: return svg("circle", { ...name, cx: x, cy: y, r: 3.2 });
  }
}

/** @typedef {{ name: string, points: { time: number, value: number, text: string[], open?: () => void }[] }} Series */

/**
 * Draw lines over time, each with its own marker.
 *
 * @param {{ label: string, series: Series[], format: (value: number, digits?: number) => string, limits?: { name: string, value: number }[], highest?: number, lowest?: number, height?: number }} data
 */
export function timeLines({ label, series, format, limits = [], highest, lowest, height = 240 }) {
  const points = series.flatMap((each) => each.points);
  const values = [...points.map((point) => point.value), ...limits.map((limit) => limit.value)];
  const times = points.map((point) => point.time);
  const from = Math.min(...times);
  const to = Math.max(...times, from + 1);
  const low = lowest ?? Math.min(...values);
  const high = highest ?? Math.max(...values);
  const margin = low === high ? Math.abs(low) * 0.05 || 1 : (high - low) * 0.06;
  const [bottom, top] = [lowest === undefined ? low - margin : low - margin / 2, highest === undefined ? high + margin : high + margin / 2];
  const draw = (/** @type {number} */ width) => {
    const inside = ticks(bottom, top, 5).filter((tick) => tick >= bottom && tick <= (highest ?? Infinity) + 1e-9);
    const longest = Math.max(...apart(inside, format).map((text) => text.length));
    const plot = { left: Math.max(58, 10 + DIGIT * longest), right: width - 12, top: 10, bottom: height - 22 };
    const x = scale(from, to, plot.left + 6, plot.right - 6);
    const y = scale(bottom, top, plot.bottom, plot.top);
    /** @type {SVGElement[]} */
    const marks = [
      ...gridLines(y, inside, format, plot.left, plot.right),
      ...timeAxis(x, from, to, plot.bottom, width),
      ...limitLines(limits, y, plot),
    ];
    series.forEach((each, index) => {
      const line = each.points.map((point, at) => `${at === 0 ? "M" : "L"}${x(point.time).toFixed(1)} ${y(point.value).toFixed(1)}`);
      marks.push(svg("path", { class: `series-${index % 8} line`, d: line.join("") }));
      if (each.points.length * series.length < 400) {
        for (const point of each.points) marks.push(marker(index, x(point.time), y(point.value)));
      }
    });
    const items = points.map((point) => ({ ...point, x: x(point.time) })).sort((one, other) => one.time - other.time);
    return { marks, items: merged(items), plot };
  };
  return element("div", {}, legend(series.map(({ name }) => name)), chart(label, height, draw));
}

/**
 * Combine the points at the same time into one item.
 *
 * @param {Item[]} items
 */
function merged(items) {
  /** @type {Map<number, Item>} */
  const found = new Map();
  for (const item of items) {
    const same = found.get(item.x);
    if (same === undefined) found.set(item.x, { ...item });
    else same.text = [...same.text, ...item.text.slice(1)].slice(0, 14);
  }
  return [...found.values()];
}

/**
 * @param {{ name: string, value: number }[]} limits
 * @param {(value: number) => number} y
 * @param {{ left: number, right: number }} plot
 */
function limitLines(limits, y, plot) {
  return limits.flatMap(({ name, value }) => [
    svg("line", { class: "limit", x1: plot.left, x2: plot.right, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick limit-name", x: plot.right, y: y(value) - 4, "text-anchor": "end" }, name),
  ]);
}

/** @param {string[]} names */
function legend(names) {
  return element("ul", { class: "legend" }, names.map((name, index) =>
    element("li", {}, svg("svg", { width: 26, height: 12, "aria-hidden": "true" },
      svg("path", { class: `series-${index % 8} line`, d: "M1 6H25" }), marker(index, 13, 6)), name)));
}

/**
 * Draw failed attempts as bars in descending order, with the line of their cumulative share.
 *
 * @param {{ label: string, rows: { name: string, count: number, cumulative: number, text: string[], open?: () => void }[] }} data
 */
export function pareto({ label, rows }) {
  const height = 280;
  const draw = (/** @type {number} */ width) => {
    const plot = { left: 46, right: width - 46, top: 14, bottom: height - 40 };
    const most = Math.max(1, ...rows.map((row) => row.count));
    const y = scale(0, most, plot.bottom, plot.top);
    const share = scale(0, 1, plot.bottom, plot.top);
    const step = (plot.right - plot.left) / Math.max(rows.length, 1);
    const middle = (/** @type {number} */ index) => plot.left + step * (index + 0.5);
    const wide = Math.min(step * 0.72, 90);
    const marks = gridLines(y, ticks(0, most, 4).filter(Number.isInteger), compact, plot.left, plot.right);
    for (const value of [0.2, 0.4, 0.6, 0.8, 1]) {
      marks.push(svg("text", { class: "tick", x: plot.right + 6, y: share(value) + 4 }, `${Math.round(value * 100)} %`));
    }
    marks.push(svg("line", { class: "limit", x1: plot.left, x2: plot.right, y1: share(0.8), y2: share(0.8) }));
    rows.forEach((row, index) => {
      marks.push(svg("rect", { class: "failed", x: middle(index) - wide / 2, y: y(row.count), width: wide, height: plot.bottom - y(row.count) }));
      const letters = Math.max(Math.floor(step / 7), 2);
      const name = row.name.length > letters ? `${row.name.slice(0, letters - 1)}…` : row.name;
      marks.push(svg("text", { class: "tick", x: middle(index), y: plot.bottom + 16, "text-anchor": "middle" }, name));
    });
    const line = rows.map((row, index) => `${index === 0 ? "M" : "L"}${middle(index).toFixed(1)} ${share(row.cumulative).toFixed(1)}`);
    marks.push(svg("path", { class: "series-0 line", d: line.join("") }));
    rows.forEach((row, index) => marks.push(marker(0, middle(index), share(row.cumulative))));
    const items = rows.map((row, index) => ({ x: middle(index), text: row.text, ...(row.open ? { open: row.open } : {}) }));
    return { marks, items, plot };
  };
  const names = legend(["cumulative share of failures"]);
  names.prepend(element("li", {}, element("span", { class: "swatch failed", "aria-hidden": "true" }), "failed attempts"));
  return element("div", {}, names, chart(label, height, draw));
}

/**
 * Draw a histogram with its limits and mean.
 *
 * @param {{ label: string, bins: { from: number, to: number, count: number, outside: boolean, text: string[], open?: () => void }[], lines: { name: string, value: number }[], format: (value: number, digits?: number) => string }} data
 */
export function histogram({ label, bins, lines, format }) {
  const height = 250;
  const edges = [...bins.flatMap((bin) => [bin.from, bin.to]), ...lines.map((line) => line.value)];
  const low = Math.min(...edges);
  const high = Math.max(...edges);
  const margin = low === high ? Math.abs(low) * 0.05 || 1 : (high - low) * 0.03;
  const draw = (/** @type {number} */ width) => {
    const plot = { left: 46, right: width - 10, top: 8 + lines.length * 14, bottom: height - 24 };
    const x = scale(low - margin, high + margin, plot.left, plot.right);
    const most = Math.max(1, ...bins.map((bin) => bin.count));
    const y = scale(0, most, plot.bottom, plot.top);
    const marks = gridLines(y, ticks(0, most, 4).filter(Number.isInteger), compact, plot.left, plot.right);
    const longest = Math.max(...[low, high].map((value) => format(value).length));
    const values = ticks(low, high, Math.max(Math.floor(width / (40 + DIGIT * longest)), 2));
    apart(values, format).forEach((text, index) => {
      const half = (DIGIT * text.length) / 2;
      const middle = Math.min(Math.max(x(/** @type {number} */ (values[index])), half), width - half);
      marks.push(svg("text", { class: "tick", x: middle, y: plot.bottom + 16, "text-anchor": "middle" }, text));
    });
    for (const bin of bins) {
      const left = bin.from === bin.to ? x(bin.from) - 8 : x(bin.from);
      const wide = bin.from === bin.to ? 16 : Math.max(x(bin.to) - left - 1, 1);
      const high = bin.count === 0 ? 0 : Math.max(plot.bottom - y(bin.count), 2);
      marks.push(svg("rect", { class: bin.outside ? "failed" : "bin", x: left, y: plot.bottom - high, width: wide, height: high }));
    }
    lines.forEach(({ name, value }, index) => {
      const kind = name === "mean" ? "mean" : "limit";
      marks.push(svg("line", { class: kind, x1: x(value), x2: x(value), y1: 14 + index * 14, y2: plot.bottom }));
      const side = x(value) > width - 90 ? "end" : x(value) < 90 ? "start" : "middle";
      marks.push(svg("text", { class: "tick limit-name", x: x(value), y: 10 + index * 14, "text-anchor": side }, `${name} ${format(value)}`));
    });
    const items = bins.map((bin) => ({ x: x((bin.from + bin.to) / 2), text: bin.text, ...(bin.open ? { open: bin.open } : {}) }));
    return { marks, items, plot };
  };
  return chart(label, height, draw);
}

/**
 * Draw lanes over time: marks for tests, bars for repairs.
 *
 * @param {{ label: string, lanes: { name: string, marks: { from: number, to: number, kind: "passed" | "failed" | "neither" | "stay", text: string[], open?: () => void }[] }[] }} data
 */
export function timeLine({ label, lanes }) {
  const lane = 46;
  const height = lanes.length * lane + 30;
  const all = lanes.flatMap(({ marks }) => marks);
  const first = Math.min(...all.map((mark) => mark.from));
  const last = Math.max(...all.map((mark) => mark.to));
  const margin = last === first ? 3_600_000 : (last - first) * 0.04;
  const draw = (/** @type {number} */ width) => {
    const plot = { left: 10, right: width - 10, top: 4, bottom: height - 22 };
    const x = scale(first - margin, last + margin, plot.left, plot.right);
    /** @type {SVGElement[]} */
    const drawn = timeAxis(x, first - margin, last + margin, plot.bottom, width);
    /** @type {Item[]} */
    const items = [];
    lanes.forEach(({ name, marks }, index) => {
      const top = index * lane + 4;
      const middle = top + 31;
      drawn.push(svg("text", { class: "lane", x: plot.left, y: top + 14 }, name));
      drawn.push(svg("line", { class: "grid", x1: plot.left, x2: plot.right, y1: middle, y2: middle }));
      // Draw failed tests last, so that no passed test hides one.
      for (const mark of [...marks].sort((one, other) => Number(one.kind === "failed") - Number(other.kind === "failed"))) {
        const at = x(mark.from);
        drawn.push(...eventMark(mark.kind, at, x(mark.to), middle));
        items.push({ x: (at + x(mark.to)) / 2, text: mark.text, ...(mark.open ? { open: mark.open } : {}) });
      }
    });
    items.sort((one, other) => one.x - other.x);
    return { marks: drawn, items, plot };
  };
  return chart(label, height, draw);
}

/**
 * @param {"passed" | "failed" | "neither" | "stay"} kind
 * @param {number} from
 * @param {number} to
 * @param {number} y
 */
function eventMark(kind, from, to, y) {
  switch (kind) {
    case "stay": return [svg("rect", { class: "stay", x: from, y: y - 6, width: Math.max(to - from, 4), height: 12, rx: 3 })];
    case "failed": return [svg("path", { class: "event-failed", d: `M${from - 5} ${y - 5}l10 10m0-10l-10 10` })];
    case "passed": return [svg("circle", { class: "event-passed", cx: from, cy: y, r: 6 })];
    default: return [svg("rect", { class: "event-neither", x: from - 4, y: y - 4, width: 8, height: 8 })];
  }
}
