/** The view of failures: the measurements that failed, as a Pareto chart with links to each measurement. */

import { pareto } from "./charts.js";
import { element } from "./dom.js";
import { behind } from "./downloads.js";
import { freeFilters, queryFilters } from "./filters.js";
import { exportUrl } from "./logs.js";
import { count, percent } from "./numbers.js";
import { Panel, allTime, empty } from "./panel.js";
import { shortName } from "./paths.js";
import { requestKey, linkWith, parameterInput, results, tiles } from "./results.js";
import * as state from "./state.js";

/** @typedef {import("./api.js").Failure} Failure */

const PASSED = "fields__passed";
const BARS = 20;
/** The row without a measurement excludes three filters for each of these. The number of filters in `q` is limited. */
const MOST_EXCLUDED = 100;

export function failuresView() {
  const unit = parameterInput("Unit", "unit", { usual: "product_imei" });
  const passed = parameterInput("Passed at", "passed", { usual: PASSED });
  const panel = new Panel("What failed attempts failed at");
  const root = element(
    "div", { class: "view" },
    element("div", { class: "panel controls" }, unit.root, passed.root), panel.root,
    behind(
      () => panel.calls, () => panel.calls.map(({ name, url }) => ({ name, url })),
      () => ({ name: "logs", url: exportUrl(state.read().params) }),
    ),
  );
  return {
    root,
    /** @param {URLSearchParams} params */
    update(params) {
      unit.update(params);
      passed.update(params);
      void panel.load(requestKey(params, ["unit", "passed"]), async (get) => {
        const found = /** @type {{ failed_attempts: number, failures: Failure[] }} */ (await get.json("failures", "v1/factory_logs/failures", {
          q: { filters: queryFilters(params) }, unit: params.get("unit"), passed: params.get("passed"), limit: 200,
        }));
        return content(found.failed_attempts, found.failures, params.get("passed") ?? PASSED);
      });
    },
    close: () => panel.stop(),
  };
}

/** @param {number} failed @param {Failure[]} failures @param {string} passed */
function content(failed, failures, passed) {
  if (failed === 0) return empty("No attempt in this time range failed with these filters.", ...allTime());
  const logs = (/** @type {Failure} */ row) => failedLogs(row, failures, passed);
  const href = (/** @type {Failure} */ row) => row.measurement === null ? logs(row) : linkWith([], "measurement", { m: row.measurement });
  const name = (/** @type {Failure} */ row) => (row.measurement === null ? "no measurement named" : shortName(row.measurement));
  const bars = failures.slice(0, BARS).map((row) => ({
    name: name(row), count: row.attempts, cumulative: row.cumulative_share,
    text: [name(row), `${count(row.attempts)} failed attempts of ${count(row.units)} units`, `${percent(row.share)} of failed attempts`, `${percent(row.cumulative_share)} of all failures, with those before it`],
    open: () => (location.hash = href(row)),
  }));
  return [
    tiles([["Failed attempts", count(failed)], ["Measurements that failed", count(failures.filter((row) => row.measurement !== null).length)], ["Most frequent", failures[0] ? name(failures[0]) : "–", failures[0] ? `${percent(failures[0].share)} of failed attempts` : ""]]),
    pareto({ label: `Pareto chart of ${bars.length} measurements by failed attempts`, rows: bars }),
    results("Failures", ["Measurement", "Failed attempts", "Units", "Share of attempts", "Cumulative share of failures", "Logs"], failures.map((row) => [
      element("a", { href: href(row), title: row.measurement }, name(row)), count(row.attempts), count(row.units), percent(row.share), percent(row.cumulative_share),
      element("a", { href: logs(row), "aria-label": `Logs that failed at ${name(row)}` }, "logs"),
    ])),
  ];
}

/**
 * Return a link to the failed attempts in which this measurement failed: the measurement, or its verdict, is false. The
 * row without a measurement leads to the attempts in which none of the most frequent ones failed.
 *
 * @param {Failure} row
 * @param {Failure[]} failures
 * @param {string} passed
 */
function failedLogs(row, failures, passed) {
  const isWithout = row.measurement === null;
  const either = (isWithout ? failures.slice(0, MOST_EXCLUDED) : [row]).flatMap(({ measurement }) =>
    measurement === null ? [] : ["", "__pass", "__passed"].map((end) => ({ name: `${measurement}${end}`, op: "==", val: false })));
  const typed = freeFilters(state.read().params.get("q") ?? "").filters;
  const which = isWithout ? { not: { or: either } } : { or: either };
  return linkWith([], "logs", { q: JSON.stringify([...typed, { name: passed, op: "==", val: false }, which]) });
}
