/** The view of yields: over time and by any field, the lowest first. */

import { timeLines } from "./charts.js";
import { element } from "./dom.js";
import { behind } from "./downloads.js";
import { byValue, queryFilters } from "./filters.js";
import { hints } from "./hints.js";
import { exportUrl, timeLimits } from "./logs.js";
import { count, percent } from "./numbers.js";
import { Panel, allTime, empty } from "./panel.js";
import { inText, shortName } from "./paths.js";
import { requestKey, linkWith, parameterInput, results, sample, tiles } from "./results.js";
import * as state from "./state.js";
import { bucketEnd, bucketFor, fromApi, timeRange, show, zone } from "./time.js";

/** @typedef {import("./api.js").Yield} Yield */

const UNIT = "product_imei";
const PASSED = "fields__passed";

export function yieldView() {
  const by = parameterInput("By", "by", { usual: "app_name" });
  const unit = parameterInput("Unit", "unit", { usual: UNIT });
  const passed = parameterInput("Passed at", "passed", { usual: PASSED });
  const overview = new Panel("Yield");
  const over = new Panel("Over time");
  const groups = new Panel("Worst first");
  const panels = [overview, over, groups];
  const parameters = (/** @type {URLSearchParams} */ params) => ({
    q: { filters: queryFilters(params) }, unit: params.get("unit"), passed: params.get("passed"),
  });
  const root = element(
    "div", { class: "view" },
    element("div", { class: "panel controls" }, by.root, unit.root, passed.root),
    overview.root, over.root, groups.root,
    behind(
      () => panels.flatMap((panel) => panel.calls),
      () => groups.calls.filter(({ name }) => name.startsWith("yield")).map(({ name, url }) => ({ name, url })),
      () => ({ name: "logs", url: exportUrl(state.read().params) }),
    ),
  );

  return {
    root,
    /** @param {URLSearchParams} params */
    update(params) {
      for (const control of [by, unit, passed]) control.update(params);
      const field = params.get("by") ?? "app_name";
      const key = requestKey(params, ["unit", "passed"]);
      const range = timeRange(params);
      void overview.load(key, async (get) => {
        const { total } = /** @type {{ total: Yield }} */ (await get.json("total yield", "v1/factory_logs/yield", parameters(params)));
        if (total.attempts === 0) {
          const why = await hints(get, queryFilters(params), [params.get("passed"), params.get("unit")]);
          return empty(`No log in this time has a boolean at ${params.get("passed") ?? PASSED}, so there is no yield to show. ${why}`, ...allTime());
        }
        return tiles([
          ["First-pass yield", percent(total.first_pass_yield), `${count(total.first_passed)} of ${count(total.units)} units and steps`],
          ["Final yield", percent(total.final_yield), `${count(total.last_passed)} passed in the end`],
          ["Rolled throughput", percent(total.rolled_throughput_yield), "all steps at the first try"],
          ["Attempts that passed", percent(total.attempt_yield), `${count(total.passed)} of ${count(total.attempts)}`],
          ["Tested again", count(total.retested), total.units > 0 ? `${percent(total.retested / total.units)} of units and steps` : ""],
        ]);
      });
      void over.load(`${key}\t${zone()}`, async (get) => {
        const [from, to] = await timeLimits(get, queryFilters(params), range);
        if (from === null || to === null) return empty("There is nothing to show over time.");
        const bucket = bucketFor(to - from, 48);
        const { buckets } = /** @type {{ buckets: Yield[] }} */ (await get.json("yield over time", "v1/factory_logs/yield", { ...parameters(params), bucket: bucket.name, tz: zone() }));
        return overTime(buckets, bucket.length);
      });
      void groups.load(`${key}\t${field}`, async (get) => {
        const [{ buckets }] = await Promise.all([
          /** @type {Promise<{ buckets: (Yield & { [by: string]: unknown })[] }>} */ (get.json(`yield by ${field}`, "v1/factory_logs/yield", { ...parameters(params), by: field })),
          sample(get, queryFilters(params)).catch(() => []),
        ]);
        return table(buckets, field, params.get("passed") ?? PASSED);
      });
    },
    close() {
      for (const panel of panels) panel.stop();
    },
  };
}

/** @param {Yield[]} buckets @param {number} step */
function overTime(buckets, step) {
  const line = (/** @type {string} */ name, /** @type {"first_pass_yield" | "final_yield"} */ member) => ({
    name,
    points: buckets.flatMap((each) => {
      const value = each[member];
      if (value === null) return [];
      const time = fromApi(each.bucket ?? "");
      return [{ time, value, text: [show(time), `${name}: ${percent(value)} of ${count(each.units)}`], open: () => zoom(time, bucketEnd(time, step)) }];
    }),
  });
  const series = [line("First-pass yield", "first_pass_yield"), line("Final yield", "final_yield")];
  const values = series.flatMap(({ points }) => points.map(({ value }) => value));
  if (values.length === 0) return empty("No units in this time.");
  return timeLines({ label: "Yield over time", series, format: percent, highest: 1, lowest: Math.max(Math.floor((Math.min(...values) - 0.02) * 20) / 20, 0) });
}

/** @param {number} from @param {number} to */
function zoom(from, to) {
  location.hash = state.link("logs", { range: null, from: new Date(from).toISOString(), to: new Date(to).toISOString() });
}

/**
 * @param {(Yield & { [by: string]: unknown })[]} buckets
 * @param {string} field
 * @param {string} passed
 */
function table(buckets, field, passed) {
  if (buckets.length === 0) return empty("No attempts in this time.");
  const rows = [...buckets].sort((one, other) => (one.first_pass_yield ?? 2) - (other.first_pass_yield ?? 2) || other.attempts - one.attempts).slice(0, 200);
  return [
    results(`Yield by ${field}`, [shortName(field), "First-pass yield", "Final yield", "Units", "Tested again", "Attempts", "Failed attempts", "Reasons"], rows.map((row) => {
      const value = row[field] ?? null;
      const filter = byValue(field, value);
      const name = value === null ? "(missing)" : inText(value);
      const failed = row.attempts - row.passed;
      return [
        element("a", { href: linkWith([filter]) }, name),
        element("span", {}, percent(row.first_pass_yield), meter(row.first_pass_yield)), percent(row.final_yield),
        count(row.units), count(row.retested), count(row.attempts),
        failed === 0 ? "0" : element("a", { href: linkWith([filter, [passed, "==", false]]), "aria-label": `${count(failed)} failed attempts of ${name}` }, count(failed)),
        failed === 0 ? "" : element("a", { href: linkWith([filter], "failures"), "aria-label": `Why ${name} failed` }, "why"),
      ];
    })),
    buckets.length > rows.length && element("p", { class: "hint" }, `The worst ${rows.length} of ${count(buckets.length)} are shown; the CSV has all.`),
  ].filter((each) => each !== false);
}

/** @param {number | null} share */
function meter(share) {
  if (share === null) return null;
  const filled = element("span");
  filled.style.width = `${share * 100}%`;
  return element("span", { class: "meter", "aria-hidden": "true" }, filled);
}
