/** The default time range of the page. */

import { getPage, buildUrl } from "./api.js";
import { fromApi, milliseconds } from "./time.js";

const SPAN = "7d";

/**
 * Return the last 7 days. If all logs are older, return the 7 days before the newest one; null if it is unknown.
 *
 * @param {unknown[]} filters
 * @returns {Promise<import("./state.js").Changes | null>}
 */
export async function defaultRange(filters) {
  const signal = AbortSignal.timeout(10_000);
  const end = async (/** @type {string} */ direction) => {
    const q = { filters, order_by: [{ field: "timestamp", direction }], limit: 1 };
    const { logs } = await getPage(buildUrl("v1/factory_logs", { q, results_per_page: 1 }), signal);
    return logs[0] ? fromApi(logs[0].timestamp) : Date.now();
  };
  const span = /** @type {number} */ (milliseconds(SPAN));
  try {
    const newest = await end("desc");
    if (newest > Date.now() - span && newest <= Date.now() + 60_000) return { range: SPAN };
    const to = Math.ceil((newest + 1) / 60_000) * 60_000;
    const from = Math.max(to - span, Math.floor((await end("asc")) / 60_000) * 60_000);
    return { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
  } catch {
    return { range: SPAN }; // the view shows the error
  }
}
