/** The bar at the end of a view. It shows the view's calls as curl commands, and downloads its results and logs. */

import * as api from "./api.js";
import { announce, button, copy, element } from "./dom.js";
import { size } from "./numbers.js";

const CSV = "text/csv";
const NDJSON = "application/x-ndjson";

/**
 * Return the bar at the end of a view.
 *
 * @param {() => import("./panel.js").Call[]} calls of the view; read when the bar is opened
 * @param {() => { name: string, url: URL }[]} results downloads as CSV
 * @param {(() => { name: string, url: URL }) | null} logs downloads as CSV and NDJSON
 */
export function behind(calls, results, logs) {
  const list = element("div", { class: "calls" });
  const details = element(
    "details", {
      class: "behind",
      toggle: () => {
        if (details.open) list.replaceChildren(...shown());
      },
    },
    element("summary", {}, "API calls and downloads"), list,
  );
  const shown = () => {
    const files = [
      ...results().map(({ name, url }) => fileButton(`${name} as CSV`, `${name}.csv`, url, CSV)),
      ...(logs === null ? [] : [
        fileButton("Logs as CSV", `${logs().name}.csv`, logs().url, CSV),
        fileButton("Logs as NDJSON", `${logs().name}.ndjson`, logs().url, NDJSON),
      ]),
    ];
    return [
      element("h3", {}, "Downloads"), element("div", { class: "files" }, files),
      element("h3", {}, "Calls behind this view"),
      element("p", { class: "hint" }, "Set the variable TOKEN to a token first. The copied command does not contain the token."),
      ...calls().map(({ name, url }) => {
        const text = api.curl(url);
        return element(
          "div", { class: "call" },
          element("div", { class: "call-head" }, element("strong", {}, name),
            button("Copy as curl", () => void copy(text), { "aria-label": `Copy as curl: ${name}` })),
          element("pre", { tabindex: 0, "aria-label": `curl: ${name}` }, text),
        );
      }),
    ];
  };
  return details;
}

/**
 * @param {string} label
 * @param {string} filename
 * @param {URL} url
 * @param {string} accept
 */
function fileButton(label, filename, url, accept) {
  const state = element("span", { class: "hint" });
  /** @type {AbortController | null} */
  let running = null;
  const start = async () => {
    if (running !== null) return running.abort();
    running = new AbortController();
    const control = running;
    try {
      const target = await chooseTarget(filename, accept);
      if (target === null) return;
      made.textContent = "Cancel";
      const report = (/** @type {number} */ bytes) => (state.textContent = ` ${size(bytes)} so far`);
      const bytes = await save(url, accept, target, filename, control.signal, report);
      state.textContent = ` ${size(bytes)}, complete`;
      announce(`${filename} is complete`);
    } catch (error) {
      state.textContent = control.signal.aborted ? " Cancelled" : ` ${error instanceof Error ? error.message : error}`;
    } finally {
      made.textContent = label;
      running = null;
    }
  };
  const made = button(label, () => void start());
  return element("span", { class: "file" }, made, state);
}

/** @typedef {{ createWritable(): Promise<WritableStream<Uint8Array>> }} FileHandle */

/**
 * Return the file that the user chooses, to be written as the data arrives. Return null if the user cancels, and
 * "memory" if the browser cannot write files (Firefox, Safari, or a page loaded by HTTP from another machine).
 *
 * @param {string} filename
 * @param {string} accept
 * @returns {Promise<FileHandle | "memory" | null>}
 */
async function chooseTarget(filename, accept) {
  /** @type {((options: object) => Promise<FileHandle>) | undefined} */
  const choose = /** @type {any} */ (window).showSaveFilePicker;
  if (choose === undefined) return "memory";
  try {
    const extension = filename.slice(filename.lastIndexOf("."));
    return await choose.call(window, { suggestedName: filename, types: [{ accept: { [accept]: [extension] } }] });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") return null;
    return "memory"; // denied by a policy or a headless browser
  }
}

/**
 * @param {URL} url
 * @param {string} accept
 * @param {FileHandle | "memory"} target
 * @param {string} filename
 * @param {AbortSignal} signal
 * @param {(bytes: number) => void} report
 */
async function save(url, accept, target, filename, signal, report) {
  const response = await api.send(url, { signal, accept });
  let bytes = 0;
  const counting = new TransformStream({
    transform(/** @type {Uint8Array} */ chunk, controller) {
      bytes += chunk.byteLength;
      report(bytes);
      controller.enqueue(chunk);
    },
  });
  const body = /** @type {ReadableStream<Uint8Array>} */ (response.body).pipeThrough(counting);
  if (target !== "memory") {
    await body.pipeTo(await target.createWritable(), { signal });
    return bytes;
  }
  const address = URL.createObjectURL(await new Response(body, { headers: { "Content-Type": accept } }).blob());
  element("a", { href: address, download: filename }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return bytes;
}
