/** The view of one measurement: histogram with limits, capability, trend by group, and links to outliers. */

import { isNumber, parse, toDouble } from "./api.js";
import { histogram, timeLines } from "./charts.js";
import { button, element } from "./dom.js";
import { behind } from "./downloads.js";
import { queryFilters, written, parseFilters } from "./filters.js";
import { hints } from "./hints.js";
import { exportUrl, timeLimits } from "./logs.js";
import { count, index, measured, percent } from "./numbers.js";
import { Panel, allTime, empty } from "./panel.js";
import { inText, namesIn, shortName } from "./paths.js";
import { requestKey, linkWith, parameterInput, results, sample, tiles } from "./results.js";
import * as state from "./state.js";
import { bucketEnd, bucketFor, fromApi, timeRange, show, zone } from "./time.js";

/** @typedef {import("./api.js").Distribution & { [by: string]: unknown }} Distribution */

const LINES = 8;
/** A process whose index is below this is not capable. */
const CAPABLE = 1.33;

export function measurementView() {
  const field = parameterInput("Number at", "m", { placeholder: "fields__output_12v__value" });
  const by = parameterInput("By", "by", { usual: "tags__jig_id" });
  const lower = parameterInput("Lower limit", "lower", { number: true });
  const upper = parameterInput("Upper limit", "upper", { number: true });
  const bins = parameterInput("Bins", "bins", { usual: "40", number: true });
  bins.input.setAttribute("min", "1");
  bins.input.setAttribute("max", "200");
  bins.input.setAttribute("step", "1");
  const spread = new Panel("Distribution");
  const trend = new Panel("Mean over time");
  const groups = new Panel("By group");
  const panels = [spread, trend, groups];
  const controls = [field, by, lower, upper, bins];
  const root = element(
    "div", { class: "view" }, element("div", { class: "panel controls" }, controls.map((control) => control.root)),
    spread.root, trend.root, groups.root,
    behind(
      () => panels.flatMap((panel) => panel.calls),
      () => panels.flatMap((panel) => panel.calls).filter(({ name }) => name.startsWith("distribution") || name.startsWith("trend")).map(({ name, url }) => ({ name, url })),
      () => ({ name: "logs", url: exportUrl(state.read().params) }),
    ),
  );
  return {
    root,
    /** @param {URLSearchParams} params */
    update(params) {
      for (const control of controls) control.update(params);
      const name = params.get("m") ?? "";
      const group = params.get("by") ?? "tags__jig_id";
      const key = requestKey(params, ["m", "lower", "upper"]);
      trend.root.hidden = groups.root.hidden = name === "";
      const filters = queryFilters(params);
      const limits = { lower: limitOf(params.get("lower")), upper: limitOf(params.get("upper")) };
      void spread.load(`${key}\t${params.get("bins")}`, async (get) => {
        if (name === "") return choices(await sample(get, filters));
        const found = /** @type {{ groups: Distribution[] }} */ (await get.json("distribution", "v1/factory_logs/distribution", { q: { filters }, field: name, bins: params.get("bins") ?? "40", ...limits }));
        const [all] = found.groups;
        return all ? distribution(all, name, limits) : numbersUnder(get, filters, name);
      });
      if (name === "") return;
      void trend.load(`${key}\t${group}\t${zone()}`, async (get) => {
        const [from, to] = await timeLimits(get, filters, timeRange(params));
        if (from === null || to === null) return empty("There is nothing to show over time.");
        const bucket = bucketFor(to - from, 36);
        const { buckets } = /** @type {{ buckets: import("./api.js").StatsBucket[] }} */ (await get.json(`trend by ${group}`, "v1/factory_logs/stats", {
          q: { filters }, bucket: bucket.name, field: name, by: group, tz: zone(),
        }));
        return trendLines(buckets, name, group, limits, bucket.length);
      });
      void groups.load(`${key}\t${group}`, async (get) => {
        const found = /** @type {{ groups: Distribution[] }} */ (await get.json(`distribution by ${group}`, "v1/factory_logs/distribution", { q: { filters }, field: name, by: group, bins: 1, ...limits }));
        return groupTable(found.groups, name, group);
      });
    },
    close() {
      for (const panel of panels) panel.stop();
    },
  };
}

/** @typedef {{ lower: string | null, upper: string | null }} Limits */

/** Return a typed limit as a JSON number: browsers also accept `.5` and `007`. @param {string | null} text */
function limitOf(text) {
  const isNumeric = text !== null && text.trim() !== "" && Number.isFinite(Number(text));
  return isNumeric && !/^-?[1-9]\d+$/.test(text) ? String(Number(text)) : text;
}

/** @param {import("./api.js").Log[]} logs */
function choices(logs) {
  const names = namesIn(logs, isNumber);
  if (names.length === 0) return empty("Type the path of a number above. None of the newest logs in this time has one.", ...allTime());
  return [
    element("p", {}, "Choose a measurement of the newest logs, or type the path of a number above:"),
    element("ul", { class: "row choices" }, names.slice(0, 60).map((name) => element("li", {}, element("a", { href: linkWith([], "measurement", { m: name }), title: name }, shortName(name))))),
  ];
}

/**
 * Open the first number below a path that is not a number itself. If there is none, return an explanation.
 *
 * @param {import("./panel.js").Get} get
 * @param {unknown[]} filters
 * @param {string} name
 */
async function numbersUnder(get, filters, name) {
  const logs = await sample(get, [...filters, { name, op: "is_not_null" }]);
  const inside = namesIn(logs, (value, path) => isNumber(value) && path.startsWith(`${name}__`));
  const first = inside.find((path) => path.endsWith("__value")) ?? inside[0];
  if (first !== undefined) {
    state.go({ m: first }, { replace: true });
    return empty(`${name} contains the number ${first}.`);
  }
  const why = await hints(get, filters, [name]);
  return empty(`No log in this time has a number at ${name}. ${why}`, element("a", { href: linkWith([[name, "is_not_null", null]]) }, "Logs with any value at this path"), ...allTime());
}

/**
 * @param {Distribution} all
 * @param {string} name
 * @param {Limits} limits
 */
function distribution(all, name, limits) {
  const [lower, upper] = [limits.lower, limits.upper].map((text) => (text === null ? null : Number(text)));
  const logs = (/** @type {[string, unknown][]} */ bounds) => linkWith(bounds.map(([operator, value]) => [name, operator, value]));
  const bins = all.histogram.map((bin, at) => {
    const last = at === all.histogram.length - 1;
    const [from, to] = [toDouble(bin.from), toDouble(bin.to)];
    return {
      from, to, count: bin.count,
      // A bin of a single number may be at the limit.
      outside: (lower !== null && lower !== undefined && from < lower && to <= lower) || (upper !== null && upper !== undefined && from >= upper && to > upper),
      text: [`${measured(bin.from)} to ${measured(bin.to)}`, `${count(bin.count)} logs`],
      open: () => (location.hash = logs([[">=", bin.from], [last ? "<=" : "<", bin.to]])),
    };
  });
  const lines = [{ name: "lower", value: lower }, { name: "mean", value: all.mean }, { name: "upper", value: upper }];
  const outside = (/** @type {number | null} */ number, /** @type {string} */ words, /** @type {string} */ operator, /** @type {string | null} */ limit) =>
    number === null || limit === null ? null : number === 0 ? element("li", {}, `No log is ${words} ${limit}.`)
      : element("li", {}, element("a", { href: logs([[operator, parse(limit)]]) }, `${count(number)} ${number === 1 ? "log is" : "logs are"} ${words} ${limit}`), ` (${percent(number / all.count)})`);
  const poor = (/** @type {number | null} */ value) => value !== null && value < CAPABLE;
  return [
    tiles([
      ["Numbers", count(all.count)], ["Mean", measured(all.mean)], ["Standard deviation", measured(all.stddev)],
      ["Median", measured(all.p50), `1 % ${measured(all.p1)}, 99 % ${measured(all.p99)}`],
      ["Minimum and maximum", `${measured(all.min)}, ${measured(all.max)}`],
      ["Cpk", index(all.cpk), all.cpk === null ? "needs a limit" : `Cp ${index(all.cp)}${poor(all.cpk) ? `, below ${CAPABLE}` : ""}`, poor(all.cpk)],
      ["Ppk", index(all.ppk), all.ppk === null ? "needs a limit" : `Pp ${index(all.pp)}${poor(all.ppk) ? `, below ${CAPABLE}` : ""}`, poor(all.ppk)],
    ]),
    histogram({
      label: `Histogram of ${name}, ${count(all.count)} numbers from ${measured(all.min)} to ${measured(all.max)}`, bins, format: measured,
      lines: /** @type {{ name: string, value: number }[]} */ (lines.filter(({ value }) => typeof value === "number" && Number.isFinite(value))),
    }),
    element("ul", { class: "outliers", "aria-label": "Outliers" },
      outside(all.below, "below", "<", limits.lower), outside(all.above, "above", ">", limits.upper),
      element("li", {}, "The lowest: ", element("a", { href: logs([["<=", all.p1]]) }, `logs up to ${measured(all.p1)}`), ", the highest: ", element("a", { href: logs([[">=", all.p99]]) }, `logs from ${measured(all.p99)}`), "."),
      limits.lower === null && limits.upper === null && element("li", {}, "Without limits. ", button("Use mean ± 3 standard deviations", () => {
        const sigma = all.stddev ?? 0;
        const decimals = sigma === 0 ? 0 : Math.min(Math.max(2 - Math.floor(Math.log10(sigma)), 0), 100);
        const [least, greatest] = sigma === 0 ? [String(all.mean), String(all.mean)] : [-3, 3].map((times) => (all.mean + times * sigma).toFixed(decimals));
        state.go({ lower: least ?? null, upper: greatest ?? null });
      }, { class: "link" }))),
  ];
}

/**
 * @param {import("./api.js").StatsBucket[]} buckets
 * @param {string} name
 * @param {string} group
 * @param {Limits} limits
 * @param {number} step
 */
function trendLines(buckets, name, group, limits, step) {
  /** @type {Map<string, { total: number, value: unknown, points: import("./charts.js").Series["points"] }>} */
  const found = new Map();
  for (const each of buckets) {
    const numbers = each.values?.[name];
    if (!numbers || numbers.avg === null || numbers.count === 0) continue;
    const value = each[group] ?? null;
    const label = value === null ? "(missing)" : inText(value);
    const one = found.get(label) ?? { total: 0, value, points: [] };
    const time = fromApi(each.bucket ?? "");
    one.total += numbers.count;
    one.points.push({
      time, value: numbers.avg,
      text: [show(time), `${label}: ${measured(numbers.avg)} (${count(numbers.count)})`],
      open: () => (location.hash = state.link("logs", { range: null, from: new Date(time).toISOString(), to: new Date(bucketEnd(time, step)).toISOString(), f: written([...parseFilters(state.read().params), [name, "is_not_null", null]]) })),
    });
    found.set(label, one);
  }
  if (found.size === 0) return empty("No numbers in this time.");
  // A trend is used to find outliers, so show the groups that differ most from the others.
  const all = [...found.values()].flatMap(({ points }) => points.map(({ value }) => value)).sort((one, other) => one - other);
  const middle = all[Math.floor(all.length / 2)] ?? 0;
  const strays = (/** @type {{ points: { value: number }[] }} */ { points }) => Math.max(...points.map(({ value }) => Math.abs(value - middle)));
  const chosen = [...found].sort((one, other) => strays(other[1]) - strays(one[1])).slice(0, LINES);
  const lines = [["lower", limits.lower], ["upper", limits.upper]].flatMap(([label, text]) => (text && Number.isFinite(Number(text)) ? [{ name: /** @type {string} */ (label), value: Number(text) }] : []));
  return [
    timeLines({ label: `Mean of ${name} over time by ${group}`, series: chosen.map(([label, { points }]) => ({ name: label, points })), format: measured, limits: lines }),
    ...(found.size > LINES ? [element("p", { class: "hint" }, `${LINES} of ${found.size} groups are shown: those furthest from the median.`)] : []),
  ];
}

/**
 * @param {Distribution[]} groups
 * @param {string} name
 * @param {string} group
 */
function groupTable(groups, name, group) {
  if (groups.length === 0) return empty("No numbers in this time.");
  const rows = [...groups].sort((one, other) => (one.ppk ?? Infinity) - (other.ppk ?? Infinity) || other.count - one.count).slice(0, 200);
  return results(`${name} by ${group}`, [shortName(group), "Numbers", "Mean", "Std. dev.", "Min", "5 %", "Median", "95 %", "Max", "Below", "Above", "Cpk", "Ppk"], rows.map((row) => {
    const value = row[group] ?? null;
    /** @type {import("./filters.js").Filter} */
    const filter = value === null ? [group, "is_null", null] : [group, "==", value];
    return [
      element("a", { href: linkWith([filter, [name, "is_not_null", null]]) }, value === null ? "(missing)" : inText(value)),
      count(row.count), ...[row.mean, row.stddev, row.min, row.p5, row.p50, row.p95, row.max].map((each) => measured(each)),
      row.below === null ? "–" : count(row.below), row.above === null ? "–" : count(row.above), index(row.cpk), index(row.ppk),
    ];
  }));
}
