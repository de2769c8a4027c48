/** Read values of a log by their names in `q`: columns, and paths such as `fields__output_12v__value`. */

import { isDigits } from "./api.js";

/** @typedef {import("./api.js").Log} Log */

export const COLUMNS = ["factory_log_id", "timestamp", "app_name", "product_imei", "repair_id", "created_at", "created_by"];
const SEPARATOR = "__";

/**
 * @param {Log} log
 * @param {string} name
 * @returns {unknown} undefined if there is none
 */
export function valueAt(log, name) {
  /** @type {any} */
  let value = log;
  for (const part of COLUMNS.includes(name) ? [name] : name.split(SEPARATOR)) {
    if (value === null || typeof value !== "object" || !Object.hasOwn(value, part)) return undefined;
    value = value[part];
  }
  return value;
}

/**
 * Return the scalars and lists under `tags` and `fields`. `name` is null for a path that `q` cannot express.
 *
 * @param {Log} log
 * @returns {{ name: string | null, keys: string[], value: unknown }[]}
 */
export function leaves(log) {
  /** @type {{ name: string | null, keys: string[], value: unknown }[]} */
  const found = [];
  const visit = (/** @type {unknown} */ value, /** @type {string[]} */ keys) => {
    if (value !== null && typeof value === "object" && !Array.isArray(value) && !isDigits(value) && Object.keys(value).length > 0) {
      for (const [key, each] of Object.entries(value)) visit(each, [...keys, key]);
    } else {
      const name = keys.join(SEPARATOR);
      const nameable = keys.length > 1 && keys.length <= 17 && name.split(SEPARATOR).length === keys.length && !keys.includes("");
      found.push({ name: nameable ? name : null, keys, value });
    }
  };
  visit(log.tags, ["tags"]);
  visit(log.fields, ["fields"]);
  return found;
}

/**
 * Return the names of values in the logs that satisfy a condition, the most frequent first.
 *
 * @param {Log[]} logs
 * @param {(value: unknown, name: string) => boolean} [condition]
 */
export function namesIn(logs, condition = () => true) {
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const log of logs) {
    for (const { name, value } of leaves(log)) {
      if (name !== null && condition(value, name)) counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  }
  return [...counts].sort((one, other) => other[1] - one[1]).map(([name]) => name);
}

/** @param {Log} log @returns {"passed" | "failed" | "neither"} */
export function verdict(log) {
  const value = valueAt(log, "fields__passed");
  return value === true ? "passed" : value === false ? "failed" : "neither";
}

/** @param {unknown} value */
export function inText(value) {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Return the name without its prefix `tags__` or `fields__`. @param {string} name */
export function shortName(name) {
  return name.replace(/^(tags|fields)__/, "").replaceAll(SEPARATOR, " › ");
}
