/** The table of logs. Only the visible rows are in the document, so that thousands of rows can be scrolled. */

import { element } from "./dom.js";
import { inText, shortName, valueAt, verdict } from "./paths.js";
import { fromApi, show, showExactly } from "./time.js";

const ROW = 30;
const AROUND = 12;
const TIMES = ["timestamp", "created_at"];
const WORDS = { passed: "✓ passed", failed: "✗ failed", neither: "" };

/** @typedef {import("./api.js").Log} Log */

/** @param {Log} log */
export function badge(log) {
  const found = verdict(log);
  return found === "neither" ? null : element("span", { class: `badge ${found}` }, WORDS[found]);
}

/**
 * @param {Log} log
 * @param {string} name
 * @returns {Node | string}
 */
function cell(log, name) {
  if (name === "fields__passed") return badge(log) ?? inText(valueAt(log, name));
  if (TIMES.includes(name)) return show(fromApi(inText(valueAt(log, name))));
  return inText(valueAt(log, name)).slice(0, 400);
}

/**
 * @param {{ href: (log: Log) => string, sort: (name: string) => void, more: () => void }} actions
 */
export function logTable({ href, sort, more }) {
  /** @type {Log[]} */
  let logs = [];
  /** @type {string[]} */
  let columns = [];
  let order = "";
  let opened = "";
  let first = -1;
  let last = -1;
  const head = element("tr");
  const body = element("tbody");
  const table = element("table", { class: "logs" }, element("caption", { class: "hidden-text" }, "Logs"), element("thead", {}, head), body);
  const root = element("div", { class: "scroll", scroll: () => draw(false), keydown: (/** @type {KeyboardEvent} */ event) => keys(event) }, table);
  new ResizeObserver(() => draw(false)).observe(root);

  const row = (/** @type {Log} */ log, /** @type {number} */ index) => {
    const [name = "timestamp", ...others] = columns;
    const text = cell(log, name);
    return element(
      "tr", {
        class: String(log.factory_log_id) === opened ? "opened" : null, "aria-rowindex": index + 2,
        "aria-current": String(log.factory_log_id) === opened ? "true" : null,
        click: (/** @type {MouseEvent} */ event) => {
          if (event.target instanceof HTMLAnchorElement || String(getSelection())) return;
          location.hash = href(log);
        },
      },
      element("td", {}, element("a", {
        href: href(log), "data-index": index,
        title: TIMES.includes(name) ? showExactly(fromApi(inText(valueAt(log, name)))) : null,
        "aria-label": text === "" ? `log ${log.factory_log_id}` : null,
      }, text === "" ? "·" : text)),
      others.map((each) => element("td", {}, cell(log, each))),
    );
  };

  const spacer = (/** @type {number} */ rows) =>
    rows > 0 ? [element("tr", { class: "spacer", "aria-hidden": "true" }, spacerCell(rows))] : [];
  const spacerCell = (/** @type {number} */ rows) => {
    const made = element("td", { colspan: columns.length });
    made.style.height = `${rows * ROW}px`;
    return made;
  };

  const draw = (/** @type {boolean} */ anew) => {
    const from = Math.max(0, Math.floor(root.scrollTop / ROW) - AROUND);
    const to = Math.min(logs.length, Math.ceil((root.scrollTop + root.clientHeight) / ROW) + AROUND);
    if (anew || from !== first || to !== last) {
      const focused = document.activeElement instanceof HTMLElement && body.contains(document.activeElement) ? document.activeElement.dataset.index : undefined;
      [first, last] = [from, to];
      body.replaceChildren(...spacer(from), ...logs.slice(from, to).map((log, at) => row(log, from + at)), ...spacer(logs.length - to));
      if (focused !== undefined) focusOn(Number(focused));
    }
    if (logs.length > 0 && to >= logs.length - AROUND) more();
  };
  const focusOn = (/** @type {number} */ index) => {
    const link = body.querySelector(`a[data-index="${index}"]`);
    if (link instanceof HTMLElement) link.focus({ preventScroll: true });
  };
  const keys = (/** @type {KeyboardEvent} */ event) => {
    if (!(event.target instanceof HTMLAnchorElement) || event.target.dataset.index === undefined) return;
    const page = Math.max(Math.floor(root.clientHeight / ROW) - 2, 1);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -logs.length, End: logs.length }[/** @type {"Home"} */ (event.key)];
    if (step === undefined) return;
    event.preventDefault();
    const index = Math.min(Math.max(Number(event.target.dataset.index) + step, 0), logs.length - 1);
    const top = index * ROW;
    if (top < root.scrollTop) root.scrollTop = top;
    else if (top + 2 * ROW > root.scrollTop + root.clientHeight - ROW) root.scrollTop = top + 3 * ROW - root.clientHeight;
    draw(false);
    focusOn(index);
  };

  return {
    root,
    /** @param {{ columns: string[], order: string, opened: string }} wanted */
    arrange(wanted) {
      ({ columns, order, opened } = wanted);
      head.replaceChildren(...columns.map((name) => {
        const direction = order === name ? "ascending" : order === `-${name}` ? "descending" : null;
        const mark = direction === null ? "" : direction === "ascending" ? " ▲" : " ▼";
        const label = name === "fields__passed" ? "result" : name === "product_imei" ? "unit" : name === "timestamp" ? "time" : shortName(name);
        return element("th", { scope: "col", "aria-sort": direction },
          element("button", { type: "button", click: () => sort(name), title: `Sort by ${name}` }, label, element("span", { "aria-hidden": "true" }, mark)));
      }));
      draw(true);
    },
    /**
     * @param {Log[]} shown
     * @param {{ top?: boolean }} [options]
     */
    show(shown, { top = false } = {}) {
      logs = shown;
      table.setAttribute("aria-rowcount", String(logs.length + 1));
      if (top) root.scrollTop = 0;
      draw(true);
    },
  };
}
