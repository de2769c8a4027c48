/** A part of a view that shows the results of calls. It also shows errors, and how long loading takes. */

import * as api from "./api.js";
import { announce, button, element } from "./dom.js";
import * as state from "./state.js";
import { timeRange } from "./time.js";

const SHOW_AFTER = 250;

/** @typedef {{ name: string, url: URL, accept?: string }} Call */

export class Panel {
  /**
   * @param {string} title
   * @param {{ tools?: (Node | null)[], label?: string }} [options]
   */
  constructor(title, { tools = [] } = {}) {
    this.title = title;
    this.body = element("div", { class: "panel-body" });
    this.state = element("div", { class: "panel-state" });
    this.heading = element("h2", {}, title);
    this.root = element(
      "section", { class: "panel", "aria-label": title },
      element("header", {}, this.heading, element("div", { class: "tools" }, tools)),
      this.state, this.body,
    );
    /** @type {string | null} */
    this.key = null;
    /** @type {AbortController | null} */
    this.running = null;
    /** @type {Call[]} the calls of the shown content */
    this.calls = [];
    this.timer = 0;
  }

  /**
   * Show the result of `read`, unless `key` is unchanged. Until it is loaded, show the old content dimmed.
   *
   * @param {string} key
   * @param {(get: Get) => Promise<Node | Node[]>} read
   */
  async load(key, read) {
    if (key === this.key) return;
    this.stop();
    this.key = key;
    this.calls = [];
    const running = new AbortController();
    this.running = running;
    const started = performance.now();
    this.root.setAttribute("aria-busy", "true");
    const again = () => {
      this.key = null;
      void this.load(key, read);
    };
    const tick = () => {
      const seconds = Math.floor((performance.now() - started) / 1000);
      const stop = () => {
        this.stop();
        this.say(`Cancelled after ${seconds} s.`, button("Try again", again));
      };
      this.state.replaceChildren(
        element("p", { class: "loading" }, element("progress", { "aria-label": `${this.title}: loading` }),
          ` Loading${seconds > 0 ? ` for ${seconds} s` : ""}… `, button("Cancel", stop)),
      );
      this.timer = setTimeout(tick, 1000);
    };
    this.timer = setTimeout(tick, SHOW_AFTER);
    try {
      const shown = await read(new Get(running.signal, this.calls));
      if (running !== this.running) return;
      this.stop();
      this.state.replaceChildren();
      this.body.replaceChildren(...[shown].flat());
    } catch (error) {
      if (running !== this.running || running.signal.aborted) return;
      this.stop();
      this.body.replaceChildren();
      const reason = error instanceof Error ? error.message : String(error);
      if (!(error instanceof api.ApiError)) console.error(error);
      this.say(reason, button("Try again", again), "error");
      announce(`${this.title}: ${reason}`);
    }
  }

  /** Cancel loading. After that, any key can be loaded again. */
  stop() {
    clearTimeout(this.timer);
    this.running?.abort();
    if (this.running !== null) this.root.removeAttribute("aria-busy");
    this.running = null;
  }

  /**
   * @param {string} text
   * @param {Node | null} [action]
   * @param {string} [kind]
   */
  say(text, action = null, kind = "note") {
    this.state.replaceChildren(element("p", { class: kind }, text, " ", action));
  }
}

/** Makes the calls of one load. They are recorded for the bar, and cancelled with the load. */
export class Get {
  /**
   * @param {AbortSignal} signal
   * @param {Call[]} calls
   */
  constructor(signal, calls) {
    this.signal = signal;
    this.calls = calls;
  }

  /**
   * @template T
   * @param {string} name
   * @param {string} path
   * @param {api.Parameters} [parameters]
   * @returns {Promise<T>}
   */
  json(name, path, parameters) {
    const url = this.note(name, path, parameters);
    return api.getJson(url, this.signal);
  }

  /**
   * @param {string} name
   * @param {api.Parameters} parameters
   */
  page(name, parameters) {
    return api.getPage(this.note(name, "v1/factory_logs", parameters), this.signal);
  }

  /**
   * @param {string} name
   * @param {string} path
   * @param {api.Parameters} [parameters]
   */
  note(name, path, parameters) {
    const url = api.buildUrl(path, parameters);
    this.calls.push({ name, url });
    return url;
  }
}

/** @param {string} text @param {...Node} actions */
export function empty(text, ...actions) {
  return element("p", { class: "empty" }, text, " ", actions);
}

/** Return a button that removes the limits of the time range, if it has any. */
export function allTime() {
  const { from, to } = timeRange(state.read().params);
  return from === null && to === null ? [] : [button("All time", () => state.go({ range: "all", from: null, to: null }))];
}
