/** Parts that the result views share: tiles, tables, the choice of a field, links to logs. */

import { debounced, element, labelled } from "./dom.js";
import { parseFilters, includes, toggled, written } from "./filters.js";
import { fieldInput, offerNames } from "./filter_bar.js";
import { namesIn } from "./paths.js";
import * as state from "./state.js";

/** @typedef {import("./filters.js").Filter} Filter */

/** @param {URLSearchParams} params @param {string[]} [others] */
export function requestKey(params, others = []) {
  return ["range", "from", "to", "f", "q", ...others].map((name) => params.getAll(name).join("\n")).join("\t");
}

/**
 * Return the URL of the logs with additional filters. A value that one of them includes is the only included value of its
 * field: included values of one field are alternatives.
 *
 * @param {Filter[]} filters
 * @param {state.ViewName} [view]
 * @param {state.Changes} [changes]
 */
export function linkWith(filters, view = "logs", changes = {}) {
  let all = parseFilters(state.read().params);
  for (const filter of filters) {
    if (includes(filter)) all = all.filter((other) => other[0] !== filter[0] || !includes(other));
    if (!written(all).includes(JSON.stringify(filter))) all = toggled(all, filter);
  }
  return state.link(view, { f: written(all), ...changes });
}

/** @param {[label: string, value: string, hint?: string, bad?: boolean][]} figures */
export function tiles(figures) {
  return element("dl", { class: "tiles" }, figures.map(([label, value, hint = "", bad = false]) =>
    element("div", { class: "tile" }, element("dt", {}, label),
      element("dd", { class: bad ? "bad" : null }, value, element("span", { class: "hint" }, hint)))));
}

/**
 * @param {string} caption
 * @param {string[]} head
 * @param {(Node | string)[][]} rows
 * @param {string} [kind] `texts` for a table without numbers
 */
export function results(caption, head, rows, kind = "") {
  return element("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption }, element(
    "table", { class: `results ${kind}` }, element("caption", { class: "hidden-text" }, caption),
    element("thead", {}, element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map((each, index) => element(index === 0 ? "th" : "td", index === 0 ? { scope: "row" } : {}, each))))),
  ));
}

/**
 * Return a control whose text is a parameter of the URL; typing never waits for a call.
 *
 * @param {string} label
 * @param {string} parameter
 * @param {{ usual?: string, number?: boolean, placeholder?: string }} [options]
 */
export function parameterInput(label, parameter, { usual = "", number = false, placeholder = "" } = {}) {
  const write = debounced(() => {
    if (input.validity.valid) state.go({ [parameter]: input.value.trim() === usual ? null : input.value.trim() }, { replace: true });
  }, 500);
  const attributes = { name: parameter, placeholder, input: write };
  const input = number ? element("input", { type: "number", step: "any", ...attributes }) : fieldInput(usual, { size: 26, ...attributes });
  return {
    root: labelled(label, input),
    input,
    /** @param {URLSearchParams} params */
    update(params) {
      if (document.activeElement !== input) input.value = params.get(parameter) ?? usual;
    },
  };
}

/**
 * Offer the field names in a sample of the selected logs as completions; return the sample.
 *
 * @param {import("./panel.js").Get} get
 * @param {unknown[]} filters
 */
export async function sample(get, filters) {
  const { logs } = await get.page("sample of logs", { q: { filters, order_by: [{ field: "timestamp", direction: "desc" }], limit: 50 }, results_per_page: 50 });
  offerNames(namesIn(logs));
  return logs;
}
