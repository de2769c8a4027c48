/** Live mode: count all new logs, and show the newest ones. */

import * as api from "./api.js";

const SHOWN = 200;
const DRAW_EVERY = 250;
const COME_BACK_AFTER = 2000;

/** @typedef {{ logs: api.Log[], total: number, passed: number, failed: number, perSecond: number, state: string }} Live */

/**
 * Follow the logs that the filters select, until the signal aborts.
 *
 * @param {unknown[]} filters
 * @param {AbortSignal} signal
 * @param {(live: Live) => void} draw called a few times a second, however many logs arrive
 */
export async function follow(filters, signal, draw) {
  const url = api.buildUrl("v1/factory_logs/tail", filters.length === 0 ? {} : { q: { filters } });
  /** @type {Live} */
  const live = { logs: [], total: 0, passed: 0, failed: 0, perSecond: 0, state: "Connecting…" };
  /** @type {string[]} the data of the newest events that are counted but not drawn yet */
  let fresh = [];
  /** @type {[time: number, total: number][]} */
  const history = [];
  let lastId = "";
  let newest = -1;

  const event = (/** @type {string} */ text) => {
    let data = "";
    for (const line of text.split("\n")) {
      if (line.startsWith("id: ")) lastId = line.slice(4);
      else if (line.startsWith("data: ")) data = line.slice(6);
    }
    // The service continues at a lower id after a restore from a backup or a failover.
    if (data === "") newest = Math.min(newest, Number(lastId));
    // After a reconnect the service may send a log again. Ids rise, so a log whose id is not higher is a duplicate.
    if (data === "" || Number(lastId) <= newest) return;
    newest = Number(lastId);
    live.total += 1;
    // Read the verdict from the parsed log, as any text in it may contain the same words.
    const passed = JSON.parse(data)?.fields?.passed;
    if (passed === true) live.passed += 1;
    else if (passed === false) live.failed += 1;
    fresh.push(data);
    if (fresh.length > 2 * SHOWN) fresh = fresh.slice(-SHOWN);
  };
  const timer = setInterval(() => {
    const now = performance.now();
    history.push([now, live.total]);
    while (history.length > 1 && now - /** @type {[number, number]} */ (history[0])[0] > 5000) history.shift();
    const [since, before] = /** @type {[number, number]} */ (history[0]);
    live.perSecond = now > since ? ((live.total - before) * 1000) / (now - since) : 0;
    if (fresh.length > 0) {
      live.logs = [...fresh.slice(-SHOWN).reverse().map(api.parse), ...live.logs].slice(0, SHOWN);
      fresh = [];
    }
    draw(live);
  }, DRAW_EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));

  while (!signal.aborted) {
    try {
      /** @type {Record<string, string>} */
      const headers = lastId === "" ? {} : { "Last-Event-ID": lastId };
      const response = await api.send(url, { signal, accept: "text/event-stream", headers });
      live.state = "Live";
      const text = /** @type {ReadableStream<BufferSource>} */ (response.body).pipeThrough(new TextDecoderStream());
      let rest = "";
      for await (const part of text) {
        const events = (rest + part).split("\n\n");
        rest = /** @type {string} */ (events.pop());
        events.forEach(event);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof api.ApiError && error.status >= 400 && error.status < 500) {
        live.state = error.message;
        clearInterval(timer);
        draw(live);
        return;
      }
    }
    live.state = "The connection has ended; reconnecting…";
    await new Promise((resolve) => setTimeout(resolve, COME_BACK_AFTER));
  }
}
