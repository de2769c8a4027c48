/** Explain why nothing is found: list the fields that no log in the catalog has, as factory_logs/client/hints.py does. */

/** @typedef {{ app_name: string, tags: { path: string }[], fields: { path: string }[] }} App */

const MOST = 3;
const MOST_CHARACTERS = 100;

/**
 * Return a sentence for each path that no log has, in the filters and among the other names.
 *
 * @param {import("./panel.js").Get} get
 * @param {unknown[]} filters
 * @param {(string | null)[]} [names]
 */
export async function hints(get, filters, names = []) {
  const named = [...new Set([...fieldNames(filters), ...names.filter((name) => name !== null)])].filter((name) => /^(tags|fields)__/.test(name));
  if (named.length === 0) return "";
  /** @type {{ apps: App[] }} */
  let catalog;
  try {
    catalog = /** @type {{ apps: App[] }} */ (await get.json("catalog", "v1/factory_logs/catalog", {}));
  } catch {
    return ""; // the catalog may not be complete yet
  }
  const paths = new Set(catalog.apps.flatMap((app) => [...app.tags, ...app.fields].map(({ path }) => path)));
  const known = [...paths];
  const unknown = named.filter((name) => !paths.has(name) && !known.some((path) => path.startsWith(`${name}__`)));
  return unknown.slice(0, MOST).map((name) => {
    const meant = nearest(name, known);
    return `No log has the field ${name}${meant === null ? "." : `; did you mean ${meant}?`}`;
  }).join(" ");
}

/** @param {unknown} filter @returns {string[]} */
function fieldNames(filter) {
  if (Array.isArray(filter)) return filter.flatMap(fieldNames);
  if (filter === null || typeof filter !== "object") return [];
  const { name, field, fieldname, or, and, not } = /** @type {{ [member: string]: unknown }} */ (filter);
  const here = [name, field, fieldname].filter((each) => typeof each === "string");
  return [.../** @type {string[]} */ (here), ...[or, and, not].flatMap(fieldNames)];
}

/** @param {string} name @param {string[]} known */
function nearest(name, known) {
  const wanted = name.toLowerCase();
  const last = wanted.split("__").at(-1);
  let best = null;
  let least = Math.floor(wanted.length / 4) + 1;
  if (wanted.length <= MOST_CHARACTERS) {
    for (const path of known) {
      if (Math.abs(path.length - wanted.length) >= least) continue;
      const changes = distance(wanted, path.toLowerCase());
      if (changes < least) [best, least] = [path, changes];
    }
  }
  return best ?? known.find((path) => path.toLowerCase().split("__").at(-1) === last) ?? null;
}

/** Return how many characters must change, come or go. @param {string} one @param {string} other */
function distance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, place) => place);
  for (let here = 1; here <= one.length; here++) {
    const next = [here];
    for (let there = 1; there <= other.length; there++) {
      const changed = /** @type {number} */ (row[there - 1]) + (one[here - 1] === other[there - 1] ? 0 : 1);
      next.push(Math.min(changed, /** @type {number} */ (row[there]) + 1, /** @type {number} */ (next[there - 1]) + 1));
    }
    row = next;
  }
  return /** @type {number} */ (row[other.length]);
}
