/** The view of one unit: its tests and repairs on one time line. */

import { buildUrl } from "./api.js";
import { timeLine } from "./charts.js";
import { button, element, labelled } from "./dom.js";
import { behind } from "./downloads.js";
import { count } from "./numbers.js";
import { Panel, empty } from "./panel.js";
import { verdict } from "./paths.js";
import { results, tiles } from "./results.js";
import * as state from "./state.js";
import { badge } from "./table.js";
import { fromApi, show, zone } from "./time.js";

/** @typedef {import("./api.js").Log} Log */

const MOST = 100;

export function unitView() {
  const input = element("input", { name: "imei", inputmode: "numeric", maxlength: 15, pattern: "[0-9]{15}", placeholder: "352099001761481", title: "15 digits", required: true });
  const form = element("form", { class: "panel controls", role: "search", submit: (/** @type {Event} */ event) => {
    event.preventDefault();
    state.go({ imei: input.value.trim() });
  } }, labelled("Unit (IMEI, 15 digits)", input), element("button", { type: "submit" }, "Show"));
  const panel = new Panel("Unit");
  const root = element(
    "div", { class: "view" }, form, panel.root,
    behind(() => panel.calls, () => [], () => ({ name: "unit", url: buildUrl("v1/factory_logs", { q: { filters: ofUnit(state.read().params.get("imei") ?? "") } }) })),
  );
  return {
    root,
    /** @param {URLSearchParams} params */
    update(params) {
      const imei = params.get("imei") ?? "";
      if (document.activeElement !== input) input.value = imei;
      panel.heading.textContent = imei === "" ? "Unit" : `Unit ${imei}`;
      void panel.load(`${imei}\t${zone()}`, async (get) => {
        if (imei === "") return empty("Type the IMEI of a unit above, or open a unit from one of its logs.");
        const [unit, page] = await Promise.all([
          /** @type {Promise<import("./api.js").Unit>} */ (get.json("unit", `v1/units/${encodeURIComponent(imei)}`)),
          get.page("logs of the unit", { q: { filters: ofUnit(imei), order_by: [{ field: "timestamp", direction: "desc" }] }, results_per_page: MOST }),
        ]);
        return content(unit, page.logs);
      });
    },
    close: () => panel.stop(),
  };
}

/** @param {string} imei */
function ofUnit(imei) {
  return [{ name: "product_imei", op: "==", val: imei }];
}

/** @param {import("./api.js").Unit} unit @param {Log[]} logs the newest first */
function content(unit, logs) {
  const open = (/** @type {Log} */ log) => state.link("logs", { range: "all", from: null, to: null, q: null, f: [JSON.stringify(["product_imei", "==", unit.product_imei])], log: String(log.factory_log_id) });
  const lanes = unit.apps.map((app) => ({
    name: app.app_name,
    marks: logs.filter((log) => log.app_name === app.app_name).map((log) => {
      const time = fromApi(log.timestamp);
      const kind = verdict(log);
      return { from: time, to: time, kind, text: [show(time), app.app_name, kind === "neither" ? "neither passed nor failed" : kind], open: () => (location.hash = open(log)) };
    }),
  }));
  // Draw a repair without an end up to the last known time.
  const known = Math.max(...[unit.last, ...unit.repairs.flatMap((repair) => [repair.arrival_date, repair.refurbishment_date])].flatMap((time) => (time === null ? [] : [fromApi(time)])));
  const stays = unit.repairs.flatMap((repair) => {
    const from = repair.arrival_date ?? repair.refurbishment_date;
    if (from === null) return [];
    const to = repair.refurbishment_date === null ? known : fromApi(repair.refurbishment_date);
    return [{ from: fromApi(from), to: Math.max(to, fromApi(from)), kind: /** @type {const} */ ("stay"), text: [`Repair ${repair.repair_id}`, repair.process ?? "process not known", `${show(fromApi(from))} to ${repair.refurbishment_date === null ? "not ended" : show(to)}`, repair.outcome ?? ""] }];
  });
  // Each repair has its own lane, as repairs may overlap.
  for (const stay of stays) lanes.push(/** @type {any} */ ({ name: stay.text.slice(0, 2).join(", "), marks: [stay] }));
  const last = lastAttempt(logs);
  const events = [
    ...logs.map((log) => ({ time: fromApi(log.timestamp), cells: [element("a", { href: open(log) }, show(fromApi(log.timestamp))), log.app_name, badge(log) ?? "–", log.repair_id === null ? "" : `repair ${log.repair_id}`] })),
    ...unit.repairs.flatMap((repair) => [
      ...(repair.arrival_date === null ? [] : [{ time: fromApi(repair.arrival_date), cells: [show(fromApi(repair.arrival_date)), `repair ${repair.repair_id}: arrived`, repair.process ?? "", repair.pending_status ?? ""] }]),
      ...(repair.refurbishment_date === null ? [] : [{ time: fromApi(repair.refurbishment_date), cells: [show(fromApi(repair.refurbishment_date)), `repair ${repair.repair_id}: refurbished`, repair.process ?? "", repair.outcome ?? ""] }]),
    ]),
  ].sort((one, other) => one.time - other.time);
  return [
    tiles([
      ["Logs", count(unit.logs)], ["Test steps", count(unit.apps.length)], ["Repairs", count(unit.repairs.length)],
      ["Last result", last === null ? "–" : verdict(last) === "passed" ? "✓ passed" : "✗ failed", last === null ? "" : last.app_name, last !== null && verdict(last) === "failed"],
    ]),
    element("ul", { class: "legend" }, element("li", {}, "● passed"), element("li", {}, "✗ failed"), element("li", {}, "■ neither"), element("li", {}, "▬ in repair")),
    timeLine({ label: `Time line of unit ${unit.product_imei}, ${logs.length} logs, ${unit.repairs.length} repairs`, lanes }),
    results("Tests and repairs", ["Time", "What", "Result", "Note"], events.map(({ cells }) => cells), "texts"),
    ...(unit.logs > logs.length ? [element("p", { class: "hint" }, `The newest ${logs.length} of ${count(unit.logs)} logs. `, button("All logs", () => (location.hash = linkToAll(unit.product_imei)), { class: "link" }))] : []),
  ];
}

/**
 * Return the last log with a verdict, by time, then by id.
 *
 * @param {Log[]} logs
 * @returns {Log | null}
 */
function lastAttempt(logs) {
  const isLater = (/** @type {Log} */ one, /** @type {Log} */ other) =>
    one.timestamp > other.timestamp || (one.timestamp === other.timestamp && one.factory_log_id > other.factory_log_id);
  return logs.reduce((/** @type {Log | null} */ found, log) => (verdict(log) !== "neither" && (found === null || isLater(log, found)) ? log : found), null);
}

/** @param {string} imei */
function linkToAll(imei) {
  return state.link("logs", { range: "all", from: null, to: null, f: [JSON.stringify(["product_imei", "==", imei])] });
}
