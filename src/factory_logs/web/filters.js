/** Convert chosen and typed filters to `q`. */

import { isScalar, parse } from "./api.js";
import { timeRange, toApi } from "./time.js";

/**
 * A filter in the URL: `["tags__jig_id", "==", "J-07"]`. In addition to the operators of `q` there is `not ==`.
 *
 * @typedef {[name: string, operator: string, value: unknown]} Filter
 */

/** @type {[string, string][]} */
export const OPERATORS = [
  ["==", "is"],
  ["not ==", "is not"],
  [">", ">"],
  [">=", ">="],
  ["<", "<"],
  ["<=", "<="],
  ["like", "is like (%, _)"],
  ["is_null", "is missing"],
  ["is_not_null", "is there"],
];

/** @param {URLSearchParams} params @returns {Filter[]} */
export function parseFilters(params) {
  return params.getAll("f").flatMap((text) => {
    const filter = parsed(text);
    return Array.isArray(filter) && typeof filter[0] === "string" && typeof filter[1] === "string"
      ? [/** @type {Filter} */ ([filter[0], filter[1], filter[2] ?? null])]
      : [];
  });
}

/** @param {string} text */
function parsed(text) {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

/** @param {Filter[]} filters */
export function written(filters) {
  return filters.map((filter) => JSON.stringify(filter));
}

/**
 * Return the filters with one added, or removed if it is present. The opposite filter is removed.
 *
 * @param {Filter[]} filters
 * @param {Filter} filter
 */
export function toggled(filters, filter) {
  const same = (/** @type {Filter} */ other) => JSON.stringify(other) === JSON.stringify(filter);
  if (filters.some(same)) return filters.filter((other) => !same(other));
  const value = JSON.stringify(filter[2]);
  const opposite = (/** @type {Filter} */ other) =>
    other[0] === filter[0] && JSON.stringify(other[2]) === value && other[1].endsWith("==") && filter[1].endsWith("==");
  return [...filters.filter((other) => !opposite(other)), filter];
}

/**
 * Return the filter that includes a value, or with `exclude` the one that excludes it.
 *
 * @param {string} name
 * @param {unknown} value
 * @param {boolean} [exclude]
 * @returns {Filter}
 */
export function byValue(name, value, exclude = false) {
  if (value === null) return [name, exclude ? "is_not_null" : "is_null", null];
  return [name, exclude ? "not ==" : "==", value];
}

/** @param {Filter} filter */
export function inWords([name, operator, value]) {
  const words = OPERATORS.find(([code]) => code === operator)?.[1] ?? operator;
  const without = operator === "is_null" || operator === "is_not_null";
  return `${name} ${words.replace(/ \(.*/, "")}${without ? "" : ` ${typeof value === "string" ? value : JSON.stringify(value)}`}`;
}

const TEXTS = ["app_name", "product_imei", "created_by", "modified_by"];

/**
 * Return the value of a text that was typed for a field: a number, true, false, or else the text itself. `"5"` in quotes
 * is text. A field that contains only text, such as an IMEI of digits, gets text.
 *
 * @param {string} name
 * @param {string} text
 */
export function typedValue(name, text) {
  const value = parsed(text);
  if (TEXTS.includes(name) && typeof value !== "string") return text;
  return value !== null && value !== undefined && isScalar(value) ? value : text;
}

/** Return whether a filter includes one value. @param {Filter} filter */
export function includes([, operator]) {
  return operator === "==" || operator === "is_null";
}

/** @param {Filter} filter */
function asQuery([name, operator, value]) {
  if (operator === "not ==") return { or: [{ not: { name, op: "==", val: value } }, { name, op: "is_null" }] };
  if (operator === "is_null" || operator === "is_not_null") return { name, op: operator };
  return { name, op: operator, val: value };
}

/**
 * Return the filters of a typed `q`: an object with `filters`, a list of filters, one filter, or the 15 digits of a unit.
 *
 * @param {string} text
 * @returns {{ filters: unknown[], error: string | null }}
 */
export function freeFilters(text) {
  const trimmed = text.trim();
  if (trimmed === "") return { filters: [], error: null };
  if (/^\d{15}$/.test(trimmed)) return { filters: [{ name: "product_imei", op: "==", val: trimmed }], error: null };
  try {
    const value = parse(trimmed);
    if (Array.isArray(value)) return { filters: value, error: null };
    if (value === null || typeof value !== "object") throw new Error("a filter is an object in braces");
    if (!("filters" in value)) return { filters: [value], error: null };
    return Array.isArray(value.filters)
      ? { filters: value.filters, error: null }
      : { filters: [], error: "filters must be a list" };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { filters: [], error: `This is neither JSON nor the 15 digits of a unit: ${reason}` };
  }
}

/**
 * Return the `filters` of `q` for the range, the chosen filters and the typed `q` in the URL. The typed ones come first,
 * so that an error names their position in the typed list. Included values of one field are alternatives. The included
 * values of the field `without` are left out, for the facet of this field.
 *
 * @param {URLSearchParams} params
 * @param {{ without?: string, now?: number, range?: import("./time.js").Range }} [options]
 */
export function queryFilters(params, { without, now, range } = {}) {
  const { from, to } = range ?? timeRange(params, now);
  const filters = [...freeFilters(params.get("q") ?? "").filters];
  if (from !== null) filters.push({ name: "timestamp", op: ">=", val: toApi(from) });
  if (to !== null) filters.push({ name: "timestamp", op: "<", val: toApi(to) });
  /** @type {Map<string, Filter[]>} */
  const included = new Map();
  for (const filter of parseFilters(params)) {
    if (includes(filter)) included.set(filter[0], [...(included.get(filter[0]) ?? []), filter]);
    else filters.push(asQuery(filter));
  }
  for (const [name, each] of included) {
    if (name === without) continue;
    filters.push(each.length === 1 ? asQuery(/** @type {Filter} */ (each[0])) : { or: each.map(asQuery) });
  }
  return filters;
}
