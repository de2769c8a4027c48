/** The view of logs: histogram, facets, table, a single log, and live mode. */

import { getPage, buildUrl } from "./api.js";
import { timeBars } from "./charts.js";
import { detailPanel } from "./detail.js";
import { announce, button, element } from "./dom.js";
import { behind } from "./downloads.js";
import { facetsPanel } from "./facets.js";
import { queryFilters } from "./filters.js";
import { fieldInput, offerNames } from "./filter_bar.js";
import { hints } from "./hints.js";
import { follow } from "./live.js";
import { count, percent } from "./numbers.js";
import { Panel, allTime, empty } from "./panel.js";
import { namesIn, shortName } from "./paths.js";
import * as state from "./state.js";
import { logTable } from "./table.js";
import { bucketFor, fromApi, timeRange, show, zone } from "./time.js";

const PAGE = 100;
/** The maximum number of logs in the table. For more, the user downloads them or adds a filter. */
const MOST = 10_000;
const COLUMNS = ["timestamp", "fields__passed", "app_name", "product_imei", "tags__jig_id"];

/** @typedef {import("./api.js").Log} Log */

export function logsView() {
  const tally = element("p", { class: "tally", "aria-live": "polite" });
  const live = button("Live", () => {
    const on = state.read().params.get("live") === "1";
    state.go({ live: on ? null : "1", log: null });
  });
  const refresh = button("Refresh", () => {
    for (const panel of panels) panel.key = null;
    view.update(state.read().params);
  });
  const picker = element("details", { class: "picker" });
  const rows = new Panel("Rows", { tools: [picker, refresh, live] });
  rows.heading.replaceChildren(tally);
  const bars = new Panel("Over time", { tools: [] });
  const facets = facetsPanel();
  const detail = detailPanel();
  const panels = [rows, bars, facets.panel, detail.panel];
  const table = logTable({
    href: (log) => logHref(log),
    sort: (name) => {
      const now = state.read().params.get("sort") ?? "-timestamp";
      state.go({ sort: now === `-${name}` ? name : `-${name}` });
    },
    more: () => void more(),
  });
  const foot = element("p", { class: "hint foot" });

  /** @type {Log[]} */
  let shown = [];
  /** @type {Set<number>} */
  let known = new Set();
  /** @type {URL | null} */
  let next = null;
  /** @type {AbortController | null} */
  let loading = null;
  /** @type {AbortController | null} */
  let following = null;
  let followed = "";
  /** @type {(logs: Log[]) => void} */
  let first = () => undefined;
  /** @type {Promise<Log[]>} */
  let firstRows = Promise.resolve([]);
  let counting = new AbortController();

  const logHref = (/** @type {Log} */ log) => {
    const params = state.changed(state.read().params, { log: String(log.factory_log_id) });
    return `#/logs?${params}`;
  };

  /** @param {Log[]} logs */
  const add = (logs) => {
    for (const log of logs) {
      if (!known.has(log.factory_log_id)) shown.push(log);
      known.add(log.factory_log_id);
    }
    offerNames(namesIn(logs.slice(0, 20)));
  };

  /** Load the next page, if there is one and no page is loading. */
  const more = async () => {
    if (next === null || loading !== null) return;
    const running = new AbortController();
    loading = running;
    foot.replaceChildren("Loading more…");
    try {
      const page = await getPage(next, running.signal);
      if (loading !== running) return;
      next = page.next;
      add(page.logs);
      loading = null;
      footnote();
      table.show(shown);
    } catch (error) {
      if (loading !== running) return;
      // Retry only when asked to: retrying at each scroll would send requests without end.
      const stopped = next;
      next = null;
      foot.replaceChildren(`${error instanceof Error ? error.message : error} `, button("Try again", () => {
        next = stopped;
        loading = null;
        void more();
      }));
    }
  };

  const footnote = () => {
    foot.textContent = next !== null ? `${count(shown.length)} rows are loaded. Scroll for more.`
      : shown.length >= MOST ? `These are the first ${count(MOST)} logs. Narrow the filters, or download all of them below.`
        : shown.length > 0 ? "These are all." : "";
  };

  /** @param {URLSearchParams} params */
  const arrange = (params) => {
    const columns = shownColumns(params);
    table.arrange({ columns, order: params.get("sort") ?? "-timestamp", opened: params.get("log") ?? "" });
    arrangePicker(picker, columns, shown);
  };

  /** @param {URLSearchParams} params @param {import("./time.js").Range} range */
  const loadRows = (params, range) => {
    const filters = queryFilters(params, { range });
    const sort = params.get("sort") ?? "-timestamp";
    const order_by = [{ field: sort.replace(/^-/, ""), direction: sort.startsWith("-") ? "desc" : "asc" }];
    const key = requestKey(params, ["sort"]);
    if (key === rows.key) return;
    loading?.abort();
    loading = next = null;
    counting.abort();
    counting = new AbortController();
    firstRows = new Promise((resolve) => (first = resolve));
    tally.textContent = "Logs";
    void rows.load(key, async (get) => {
      const q = { filters, order_by, limit: MOST };
      const page = await get.page("rows", { q, cursor: "", results_per_page: PAGE });
      shown = [];
      known = new Set();
      add(page.logs);
      first(page.logs);
      if (page.total < MOST) say(page.total);
      else void countAll(get, filters, counting.signal);
      arrange(state.read().params);
      next = page.next;
      footnote();
      table.show(shown, { top: true });
      if (page.logs.length > 0) return [table.root, foot];
      const isFiltered = params.has("f") || params.has("q");
      const widen = allTime();
      const time = widen.length > 0 ? " in this time range" : "";
      const why = await hints(get, filters);
      return empty(isFiltered ? `No logs${time} match these filters. ${why}` : `There are no logs${time}.`,
        ...(isFiltered ? [button("Clear filters", () => state.go({ f: null, q: null }))] : []),
        ...widen);
    }).then(() => first([]));
  };

  /** @param {number} total */
  const say = (total) => {
    tally.replaceChildren(element("strong", {}, count(total)), total === 1 ? " log" : " logs");
  };

  /**
   * The rows do not wait for this.
   *
   * @param {import("./panel.js").Get} get
   * @param {unknown[]} filters
   * @param {AbortSignal} signal
   */
  const countAll = async (get, filters, signal) => {
    const url = get.note("count", "v1/factory_logs", { q: { filters }, results_per_page: 1 });
    const running = new AbortController();
    signal.addEventListener("abort", () => running.abort());
    tally.replaceChildren(`More than ${count(MOST)} logs, counting… `, button("Stop", () => {
      running.abort();
      tally.textContent = `More than ${count(MOST)} logs`;
    }, { class: "link" }));
    try {
      const { total } = await getPage(url, running.signal);
      if (!signal.aborted) say(total);
    } catch (error) {
      if (!running.signal.aborted) tally.textContent = `More than ${count(MOST)} logs; they could not be counted: ${error instanceof Error ? error.message : error}`;
    }
  };

  /** @param {URLSearchParams} params @param {import("./time.js").Range} range */
  const loadBars = (params, range) => {
    const filters = queryFilters(params, { range });
    void bars.load(`${requestKey(params)}\t${zone()}`, async (get) => {
      const [from, to] = await timeLimits(get, filters, range);
      if (from === null || to === null) return empty("There is nothing to show over time.");
      const bucket = bucketFor(to - from);
      const { buckets } = await /** @type {Promise<{ buckets: import("./api.js").StatsBucket[] }>} */ (get.json("logs over time", "v1/factory_logs/stats", {
        q: { filters }, bucket: bucket.name, by: "fields__passed", tz: zone(),
      }));
      return overTime(buckets, from, to, bucket.length);
    });
  };

  /** @param {URLSearchParams} params */
  const followLive = (params) => {
    const filters = queryFilters(params, { range: { from: null, to: null } });
    const key = JSON.stringify(filters);
    if (following !== null && followed === key) return;
    following?.abort();
    following = new AbortController();
    followed = key;
    for (const panel of panels) {
      panel.stop();
      panel.key = null;
    }
    counting.abort();
    next = null;
    loading?.abort();
    rows.state.replaceChildren();
    rows.body.replaceChildren(table.root, foot);
    bars.body.replaceChildren();
    shown = [];
    table.show([], { top: true });
    foot.textContent = "The newest logs are on top; all are counted, the newest 200 are shown.";
    void follow(filters, following.signal, ({ logs, total, passed, failed, perSecond, state: text }) => {
      tally.replaceChildren(
        element("span", { class: text === "Live" ? "live-dot" : "live-dot off", "aria-hidden": "true" }), `${text}: `,
        element("strong", { class: "live-total" }, count(total)), ` new, ${count(Math.round(perSecond))} a second, ${count(passed)} passed, ${count(failed)} failed`,
      );
      if (logs !== shown) {
        shown = logs;
        table.show(shown);
      }
    });
  };

  const layout = element("div", { class: "logs-layout" }, facets.panel.root,
    element("div", { class: "middle" }, bars.root, rows.root), detail.panel.root);
  const root = element(
    "div", { class: "view logs-view", keydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape" && state.read().params.has("log")) state.go({ log: null });
    } },
    layout,
    behind(
      () => panels.flatMap((panel) => panel.calls), () => [],
      () => ({ name: "logs", url: exportUrl(state.read().params) }),
    ),
  );

  const view = {
    root,
    /** @param {URLSearchParams} params */
    update(params) {
      const range = timeRange(params);
      const isLive = params.get("live") === "1";
      const id = params.get("log");
      live.textContent = isLive ? "Stop live" : "Live";
      live.setAttribute("aria-pressed", String(isLive));
      refresh.hidden = isLive;
      bars.root.hidden = isLive;
      facets.panel.root.hidden = isLive;
      detail.panel.root.hidden = id === null;
      layout.classList.toggle("with-detail", id !== null);
      layout.classList.toggle("is-live", isLive);
      if (isLive) {
        followLive(params);
      } else {
        if (following !== null) announce("Live mode has ended");
        following?.abort();
        following = null;
        loadRows(params, range);
        loadBars(params, range);
        facets.update(params, range, firstRows);
      }
      arrange(params);
      if (id !== null) detail.update(id, params);
    },
    close() {
      following?.abort();
      counting.abort();
      loading?.abort();
      for (const panel of panels) panel.stop();
    },
  };
  return view;
}

/** @param {URLSearchParams} params @param {string[]} [others] */
function requestKey(params, others = []) {
  return ["range", "from", "to", "f", "q", ...others].map((name) => params.getAll(name).join("\n")).join("\t");
}

/** @param {URLSearchParams} params */
export function exportUrl(params) {
  const sort = params.get("sort") ?? "-timestamp";
  const order_by = [{ field: sort.replace(/^-/, ""), direction: sort.startsWith("-") ? "desc" : "asc" }];
  return buildUrl("v1/factory_logs", { q: { filters: queryFilters(params), order_by } });
}

/**
 * Return the first and last time of the selected logs, for a range without a beginning or end.
 *
 * @param {import("./panel.js").Get} get
 * @param {unknown[]} filters
 * @param {import("./time.js").Range} range
 */
export async function timeLimits(get, filters, range) {
  const end = async (/** @type {string} */ direction) => {
    const page = await get.page(direction === "asc" ? "oldest" : "newest", { q: { filters, order_by: [{ field: "timestamp", direction }], limit: 1 }, results_per_page: 1 });
    return page.logs[0] ? fromApi(page.logs[0].timestamp) : null;
  };
  const [from, to] = await Promise.all([range.from ?? end("asc"), range.to ?? (range.from !== null ? Date.now() : end("desc"))]);
  return /** @type {const} */ ([from, to === null ? null : Math.max(to, (from ?? 0) + 1000)]);
}

/**
 * @param {import("./api.js").StatsBucket[]} buckets
 * @param {number} from
 * @param {number} to
 * @param {number} step
 */
function overTime(buckets, from, to, step) {
  /** @type {Map<number, { time: number, passed: number, failed: number, neither: number, text: string[] }>} */
  const bars = new Map();
  for (const { bucket = "", count: logs, fields__passed: passed } of buckets) {
    const time = fromApi(bucket);
    const bar = bars.get(time) ?? { time, passed: 0, failed: 0, neither: 0, text: [] };
    bar[passed === true ? "passed" : passed === false ? "failed" : "neither"] += logs;
    bars.set(time, bar);
  }
  if (bars.size === 0) return empty("No logs in this time.");
  const all = { passed: 0, failed: 0, neither: 0 };
  for (const bar of bars.values()) {
    for (const kind of /** @type {const} */ (["passed", "failed", "neither"])) all[kind] += bar[kind];
    bar.text = [show(bar.time), `${count(bar.passed)} passed`, `${count(bar.failed)} failed`, `${count(bar.neither)} neither`];
  }
  const attempts = all.passed + all.failed;
  const zoom = (/** @type {number} */ begin, /** @type {number} */ end) =>
    state.go({ range: null, from: new Date(begin).toISOString(), to: new Date(end).toISOString(), log: null });
  return [
    element("ul", { class: "legend" },
      element("li", {}, element("span", { class: "swatch passed", "aria-hidden": "true" }), `${count(all.passed)} passed`),
      element("li", {}, element("span", { class: "swatch failed", "aria-hidden": "true" }), `${count(all.failed)} failed${attempts > 0 ? `, ${percent(all.failed / attempts)}` : ""}`),
      element("li", {}, element("span", { class: "swatch neither", "aria-hidden": "true" }), `${count(all.neither)} neither`),
      element("li", { class: "hint" }, "drag to zoom")),
    timeBars({ label: `Logs over time, ${count(all.passed)} passed, ${count(all.failed)} failed, ${count(all.neither)} neither`, from, to, step, bars: [...bars.values()].sort((one, other) => one.time - other.time), zoom }),
  ];
}

/** @param {URLSearchParams} params */
function shownColumns(params) {
  return params.get("cols")?.split(",").filter(Boolean) ?? COLUMNS;
}

/**
 * Offer columns. Present ones are not changed, so that they keep the focus.
 *
 * @param {HTMLElement} picker
 * @param {string[]} columns
 * @param {Log[]} logs
 */
function arrangePicker(picker, columns, logs) {
  const offered = [...new Set([...COLUMNS, "factory_log_id", "repair_id", ...namesIn(logs.slice(0, 100)), ...columns])].slice(0, 60);
  const boxes = [...picker.querySelectorAll("input[type=checkbox]")].filter((box) => box instanceof HTMLInputElement);
  if (offered.every((name) => boxes.some((box) => box.name === name))) {
    for (const box of boxes) box.checked = columns.includes(box.name);
    return;
  }
  const choose = (/** @type {string} */ name, /** @type {boolean} */ wanted) => {
    const others = shownColumns(state.read().params).filter((each) => each !== name);
    const chosen = wanted ? [...others, name] : others;
    state.go({ cols: chosen.length === 0 ? "timestamp" : chosen.join(",") }, { replace: true });
  };
  const made = offered.map((name) => element("label", {}, element("input", {
    type: "checkbox", name, checked: columns.includes(name),
    change: (/** @type {Event} */ event) => choose(name, /** @type {HTMLInputElement} */ (event.target).checked),
  }), ` ${name === "fields__passed" ? "result" : shortName(name)}`));
  const name = fieldInput("", { "aria-label": "Add a column", placeholder: "any field" });
  const adding = element("form", { submit: (/** @type {Event} */ event) => {
    event.preventDefault();
    if (name.value.trim() !== "") choose(name.value.trim(), true);
  } }, name, element("button", { type: "submit" }, "Add"));
  picker.replaceChildren(element("summary", {}, "Columns"), element("fieldset", {}, element("legend", { class: "hidden-text" }, "Columns"), made, adding));
}
