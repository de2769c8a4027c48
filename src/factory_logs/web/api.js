/** Call the API with the token in a header, and show calls as curl commands. */

import * as session from "./session.js";

/** The base URL of the service, with the path prefix of a proxy: this module is at `<base>/web/<digest>/api.js`. */
const BASE = new URL("../../", import.meta.url);

export class ApiError extends Error {
  /** @param {string} message @param {number} status 0 if the service was not reached */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** @typedef {{ [name: string]: string | number | string[] | null | undefined | object }} Parameters */

/**
 * Return the URL of a call. An object becomes JSON, and a list repeats the parameter. null, undefined and "" are
 * omitted.
 *
 * @param {string} path such as `v1/factory_logs`
 * @param {Parameters} [parameters]
 */
export function buildUrl(path, parameters = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each === null || each === undefined) continue;
      if (each === "" && name !== "cursor") continue;
      url.searchParams.append(name, typeof each === "object" ? JSON.stringify(each) : String(each));
    }
  }
  return url;
}

/**
 * @param {URL} url
 * @param {{ signal?: AbortSignal, accept?: string, method?: string, body?: string, headers?: Record<string, string> }} [options]
 */
export async function send(url, { signal, accept = "application/json", method = "GET", body, headers = {} } = {}) {
  const token = session.token();
  /** @type {Record<string, string>} */
  const authorization = token === null ? {} : { Authorization: `Token token=${token}` };
  /** @type {RequestInit} */
  const request = { method, headers: { Accept: accept, ...authorization, ...headers }, cache: "no-cache" };
  if (signal !== undefined) request.signal = signal;
  if (body !== undefined) request.body = body;
  let response;
  try {
    response = await fetch(url, request);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The service cannot be reached. Check the network, then try again.", 0);
  }
  if (response.ok) return response;
  const message = await errorMessage(response);
  if (response.status === 401 && token !== null && token === session.token()) session.end(message);
  throw new ApiError(message, response.status);
}

/** @param {Response} response */
async function errorMessage(response) {
  try {
    const { message, errors = [] } = await response.json();
    const messages = errors.map((/** @type {{field: string, message: string}} */ each) => `${each.field}: ${each.message}`);
    return [message, ...messages].join(" · ");
  } catch {
    return `The service responded with status ${response.status}.`;
  }
}

/**
 * @template T
 * @param {URL} url
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
export async function getJson(url, signal) {
  const response = await send(url, signal === undefined ? {} : { signal });
  return /** @type {T} */ (parse(await response.text()));
}

/**
 * Parse JSON. An integer that a double cannot represent keeps its digits as text, if the browser supports this.
 *
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  /** @type {any} the newer methods of JSON, which TypeScript does not know yet */
  const json = JSON;
  if (json.rawJSON === undefined) return JSON.parse(text);
  return json.parse(text, (/** @type {string} */ _, /** @type {unknown} */ value, /** @type {{ source?: string }} */ { source }) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(source ?? "") ? json.rawJSON(source) : value,
  );
}

/** Return whether a value is an integer that `parse` kept as digits. @param {unknown} value */
export function isDigits(value) {
  return /** @type {any} */ (JSON).isRawJSON?.(value) ?? false;
}

/** Return whether a value is a number, possibly an integer that `parse` kept as digits. @param {unknown} value */
export function isNumber(value) {
  return typeof value === "number" || isDigits(value);
}

/** Return a number as a double, for a chart. @param {unknown} value a number, possibly kept as digits */
export function toDouble(value) {
  return isDigits(value) ? Number(/** @type {any} */ (value).rawJSON) : /** @type {number} */ (value);
}

/** Return whether a filter can compare the value with `==`. @param {unknown} value */
export function isScalar(value) {
  return value === null || typeof value !== "object" || isDigits(value);
}

/**
 * Return a page of logs, and the URL of the next page.
 *
 * @param {URL} url
 * @param {AbortSignal} signal
 * @returns {Promise<{ logs: Log[], total: number, next: URL | null }>}
 */
export async function getPage(url, signal) {
  const response = await send(url, { signal });
  const link = /<([^>]*)>; rel="next"/.exec(response.headers.get("Link") ?? "");
  const body = parse(await response.text());
  // Use only the path of the link: its host may be wrong if the service does not know the proxy.
  const next = link ? new URL(`v1/factory_logs${new URL(/** @type {string} */ (link[1]), BASE).search}`, BASE) : null;
  return { logs: body.objects, total: body.num_results, next };
}

/**
 * Return the call as a shell command. The token is a shell variable, so that it is not shown.
 *
 * @param {URL} url
 * @param {string} [accept]
 */
export function curl(url, accept) {
  const quoted = (/** @type {string} */ text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const parameters = [...url.searchParams].map(([name, value]) => ` \\\n  --data-urlencode ${quoted(`${name}=${value}`)}`);
  const header = accept === undefined ? "" : ` -H ${quoted(`Accept: ${accept}`)}`;
  return `curl -sG ${quoted(url.origin + url.pathname)} -H "Authorization: Token token=$TOKEN"${header}${parameters.join("")}`;
}

/**
 * @typedef {object} Log
 * @property {number} factory_log_id
 * @property {string} app_name
 * @property {string | null} product_imei
 * @property {number | null} repair_id
 * @property {string} timestamp
 * @property {unknown} tags
 * @property {unknown} fields
 *
 * @typedef {{ count: number, min: number | null, avg: number | null, max: number | null, p50: number | null, p95: number | null }} Measures
 * @typedef {{ bucket?: string, count: number, values?: { [field: string]: Measures }, [by: string]: unknown }} StatsBucket
 * @typedef {{ values: { value: unknown, count: number }[], other: number, missing: number }} Facet
 *
 * @typedef {object} Yield
 * @property {string} [bucket]
 * @property {number} attempts
 * @property {number} passed
 * @property {number} units
 * @property {number} first_passed
 * @property {number} last_passed
 * @property {number} retested
 * @property {number | null} attempt_yield
 * @property {number | null} first_pass_yield
 * @property {number | null} final_yield
 * @property {number | null} [rolled_throughput_yield]
 *
 * @typedef {{ measurement: string | null, attempts: number, units: number, share: number, cumulative_share: number }} Failure
 *
 * @typedef {object} Distribution
 * @property {number} count
 * @property {number} mean
 * @property {number | null} stddev
 * @property {number} min
 * @property {number} max
 * @property {number} p1
 * @property {number} p5
 * @property {number} p25
 * @property {number} p50
 * @property {number} p75
 * @property {number} p95
 * @property {number} p99
 * @property {{ from: number, to: number, count: number }[]} histogram
 * @property {number | null} below
 * @property {number | null} above
 * @property {number | null} cp
 * @property {number | null} cpk
 * @property {number | null} pp
 * @property {number | null} ppk
 *
 * @typedef {{ app_name: string, logs: number, attempts: number, passed: number, first: string, last: string, last_passed: boolean | null }} UnitApp
 * @typedef {{ repair_id: number, arrival_date: string | null, refurbishment_date: string | null, process: string | null, outcome: string | null, pending_status: string | null }} Repair
 * @typedef {{ product_imei: string, logs: number, first: string | null, last: string | null, apps: UnitApp[], repairs: Repair[] }} Unit
 */
