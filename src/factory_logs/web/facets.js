/** The facets: the values of fields, each with its number of logs. A click includes or excludes a value. */

import { isScalar } from "./api.js";
import { button, element } from "./dom.js";
import { byValue, parseFilters, inWords, queryFilters, toggled, written } from "./filters.js";
import { fieldInput } from "./filter_bar.js";
import { compact, count } from "./numbers.js";
import { Panel, empty } from "./panel.js";
import { inText, namesIn, shortName } from "./paths.js";
import * as state from "./state.js";

const FIRST = ["app_name", "fields__passed"];
const MOST = 10;
const VALUES = 8;

/**
 * Return the default facets: the fields that have few different short texts in the loaded logs.
 *
 * @param {import("./api.js").Log[]} logs
 */
function usual(logs) {
  const texts = namesIn(logs, (value, name) => name.startsWith("tags__") && typeof value === "string" && value.length < 40);
  return [...FIRST, ...texts.filter((name) => !/serial|_sn$/.test(name)).slice(0, 4)];
}

export function facetsPanel() {
  const panel = new Panel("Facets");
  panel.root.classList.add("facets");

  /**
   * @param {URLSearchParams} params
   * @param {import("./time.js").Range} range
   * @param {Promise<import("./api.js").Log[]>} rows
   */
  const update = (params, range, rows) => {
    const key = ["range", "from", "to", "f", "q", "facets"].map((name) => params.getAll(name).join("\n")).join("\t");
    void panel.load(key, async (get) => {
      const chosen = params.get("facets")?.split(",").filter(Boolean) ?? usual(await rows.catch(() => []));
      const fields = chosen.slice(0, MOST);
      const filters = parseFilters(params);
      const own = fields.filter((field) => filters.some(([name, operator]) => name === field && (operator === "==" || operator === "is_null")));
      const others = fields.filter((field) => !own.includes(field));
      const ask = (/** @type {string[]} */ asked, /** @type {string | undefined} */ without) =>
        /** @type {Promise<{ facets: { [field: string]: import("./api.js").Facet } }>} */ (
          get.json(without === undefined ? "facets" : `facet ${without}`, "v1/factory_logs/facets", {
            q: { filters: queryFilters(params, { range, ...(without === undefined ? {} : { without }) }) }, field: asked, limit: VALUES,
          }));
      const results = await Promise.all([...(others.length > 0 ? [ask(others, undefined)] : []), ...own.map((field) => ask([field], field))]);
      const facets = Object.assign(Object.create(null), ...results.map((each) => each.facets));
      return [...fields.map((field) => group(field, facets[field], filters, fields)), adding(fields)];
    });
  };
  return { panel, update };
}

/**
 * @param {string} field
 * @param {import("./api.js").Facet} facet
 * @param {import("./filters.js").Filter[]} filters
 * @param {string[]} fields
 */
function group(field, facet, filters, fields) {
  const values = facet.missing > 0 ? [...facet.values, { value: null, count: facet.missing }] : facet.values;
  const most = Math.max(1, ...values.map((each) => each.count));
  const rows = values.map(({ value, count: logs }) => {
    const include = byValue(field, value);
    const exclude = byValue(field, value, true);
    const active = (/** @type {import("./filters.js").Filter} */ filter) => filters.some((each) => JSON.stringify(each) === JSON.stringify(filter));
    const press = (/** @type {import("./filters.js").Filter} */ filter) => state.go({ f: written(toggled(parseFilters(state.read().params), filter)), log: null });
    const words = value === null ? "(missing)" : field === "fields__passed" && value === true ? "✓ passed" : field === "fields__passed" && value === false ? "✗ failed" : inText(value) || "(empty)";
    const comparable = isScalar(value);
    const bar = element("span", { class: "facet-bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * logs) / most}%`;
    return element(
      "li", { class: active(include) ? "included" : active(exclude) ? "excluded" : null }, bar,
      element("button", {
        type: "button", class: "facet-value", "aria-pressed": String(active(include)), disabled: !comparable, title: inWords(include), click: () => press(include),
      }, element("span", { class: "facet-text" }, words), element("span", { class: "facet-count", title: count(logs) }, compact(logs))),
      comparable && button("≠", () => press(exclude), { class: "facet-not", "aria-pressed": String(active(exclude)), "aria-label": `Exclude ${field} ${words}`, title: "Exclude" }),
    );
  });
  const remove = button("×", () => state.go({ facets: fields.filter((each) => each !== field).join(",") || "app_name" }), { class: "facet-remove", "aria-label": `Remove the facet ${field}`, title: "Remove this facet" });
  return element("div", { class: "facet" }, element(
    "details", { open: true },
    element("summary", { title: field }, element("span", {}, field === "fields__passed" ? "result" : shortName(field))),
    rows.length === 0 ? empty("No values.") : element("ul", {}, rows),
    facet.other > 0 && element("p", { class: "hint facet-foot" }, `+ ${count(facet.other)} with other values`),
  ), remove);
}

/** @param {string[]} fields */
function adding(fields) {
  const name = fieldInput("", { "aria-label": "Add a facet", placeholder: "+ field", required: true });
  return element("form", {
    class: "add-facet",
    submit: (/** @type {Event} */ event) => {
      event.preventDefault();
      const field = name.value.trim();
      if (field !== "" && !fields.includes(field)) state.go({ facets: [...fields.slice(0, MOST - 1), field].join(",") });
    },
  }, name, element("button", { type: "submit" }, "Add"));
}
