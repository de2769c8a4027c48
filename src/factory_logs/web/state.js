/**
 * The state of the page is in its URL, after the `#`. Browsers do not send this part, so no server or proxy can log
 * it. The state never contains the token.
 */

/** @typedef {"logs" | "yield" | "failures" | "measurement" | "unit"} ViewName */

/** @type {[ViewName, string][]} */
export const VIEWS = [
  ["logs", "Logs"],
  ["yield", "Yield"],
  ["failures", "Failures"],
  ["measurement", "Measurement"],
  ["unit", "Unit"],
];
/** The parameters that all views share. */
const COMMON = ["range", "from", "to", "f", "q", "utc"];

/** @returns {{ view: ViewName, params: URLSearchParams }} */
export function read() {
  const [path, query = ""] = splitOnce(location.hash.replace(/^#\/?/, ""), "?");
  const found = VIEWS.find(([name]) => name === path);
  return { view: found ? found[0] : "logs", params: new URLSearchParams(query) };
}

/**
 * @param {string} text
 * @param {string} separator
 * @returns {string[]}
 */
function splitOnce(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** @typedef {{ [name: string]: string | string[] | null }} Changes null removes a parameter */

/**
 * @param {URLSearchParams} params
 * @param {Changes} changes
 */
export function changed(params, changes) {
  const next = new URLSearchParams(params);
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const each of value === null ? [] : [value].flat()) if (each !== "") next.append(name, each);
  }
  return next;
}

/**
 * Return the URL of a view with the current range and filters.
 *
 * @param {ViewName} view
 * @param {Changes} [changes]
 */
export function link(view, changes = {}) {
  const common = new URLSearchParams([...read().params].filter(([name]) => COMMON.includes(name)));
  return address(view, changed(common, changes));
}

/**
 * @param {ViewName} view
 * @param {URLSearchParams} params
 */
function address(view, params) {
  return `#/${view}${params.size ? `?${params}` : ""}`;
}

/**
 * Change the state. Add a step to the history, or with `replace` replace the current step.
 *
 * @param {Changes} changes
 * @param {{ view?: ViewName, replace?: boolean }} [options]
 */
export function go(changes, { view, replace = false } = {}) {
  const now = read();
  const next = view === undefined || view === now.view ? address(now.view, changed(now.params, changes)) : link(view, changes);
  if (next === location.hash) return;
  if (replace) history.replaceState(null, "", next);
  else history.pushState(null, "", next);
  dispatchEvent(new Event("state"));
}
