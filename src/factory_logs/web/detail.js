/** Show one log with all its values. Each value can become a filter, each number a measurement. */

import { isNumber, isScalar } from "./api.js";
import { button, copy, element } from "./dom.js";
import { byValue, parseFilters, toggled, written } from "./filters.js";
import { Panel } from "./panel.js";
import { inText, leaves, shortName } from "./paths.js";
import * as state from "./state.js";
import { badge } from "./table.js";
import { fromApi, showExactly, zone } from "./time.js";

export function detailPanel() {
  const close = button("Close", () => state.go({ log: null }), { class: "quiet", title: "Key Escape" });
  const panel = new Panel("Log", { tools: [close] });
  panel.root.classList.add("detail");

  /** @param {string} id @param {URLSearchParams} params */
  const update = (id, params) => {
    const key = [id, params.get("utc")].join("\n");
    void panel.load(key, async (get) => {
      const log = /** @type {import("./api.js").Log} */ (await get.json("log", `v1/factory_logs/${encodeURIComponent(id)}`));
      panel.heading.textContent = `Log ${log.factory_log_id}`;
      return shown(log);
    });
  };
  return { panel, update };
}

/** @param {import("./api.js").Log} log */
function shown(log) {
  const filterButtons = (/** @type {string} */ name, /** @type {unknown} */ value) =>
    [false, true].map((exclude) => button(exclude ? "≠" : "=", () => state.go({ f: written(toggled(parseFilters(state.read().params), byValue(name, value, exclude))) }), {
      class: "small", "aria-label": `${exclude ? "Exclude" : "Only"} ${name} ${inText(value)}`, title: exclude ? "Exclude this value" : "Only this value",
    }));
  const row = (/** @type {string} */ label, /** @type {Node | string} */ text, /** @type {Node[]} */ actions) =>
    element("tr", {}, element("th", { scope: "row" }, label), element("td", {}, text), element("td", { class: "actions" }, actions));
  const unit = log.product_imei;
  const columns = [
    row("time", element("span", {}, showExactly(fromApi(log.timestamp)), element("span", { class: "hint" }, ` ${zone()}`)), []),
    row("UTC", `${log.timestamp}Z`, []),
    row("app", log.app_name, filterButtons("app_name", log.app_name)),
    row("unit", unit === null ? "–" : element("a", { href: state.link("unit", { imei: unit }) }, unit), unit === null ? [] : filterButtons("product_imei", unit)),
    row("repair", inText(log.repair_id) || "–", log.repair_id === null ? [] : filterButtons("repair_id", log.repair_id)),
  ];
  const all = leaves(log);
  const part = (/** @type {string} */ column) => {
    const found = all.filter(({ keys }) => keys[0] === column);
    const rows = found.map(({ name, keys, value }) => {
      const actions = name !== null && isScalar(value) ? filterButtons(name, value) : [];
      if (name !== null && isNumber(value)) {
        const href = state.link("measurement", { m: name, f: written(toggled([], ["app_name", "==", log.app_name])) });
        actions.push(/** @type {any} */ (element("a", { href, class: "small", "aria-label": `chart of ${name}` }, "chart")));
      }
      const text = column === "fields" && value === false ? element("span", { class: "badge failed" }, "✗ false") : inText(value) || (value === null ? "null" : '""');
      return row(keys.length > 1 ? (name === null ? keys.slice(1).join(" › ") : shortName(name)) : column, text, actions);
    });
    return [element("h3", {}, column), element("div", { class: "wide" }, element("table", { class: "values" }, element("tbody", {}, rows)))];
  };
  return [
    element("p", { class: "verdict" }, badge(log) ?? element("span", { class: "hint" }, "neither passed nor failed")),
    element("div", { class: "wide" }, element("table", { class: "values" }, element("tbody", {}, columns))),
    ...part("tags"), ...part("fields"),
    element("p", { class: "row" }, button("Copy as JSON", () => void copy(JSON.stringify(log, null, 2)))),
  ];
}
