/** The frame of the page: the login or a view, navigation, and the buttons of time zone and theme. */

import { hatch } from "./charts.js";
import { announce, button, element, liveRegion } from "./dom.js";
import { failuresView } from "./failures.js";
import { queryFilters } from "./filters.js";
import { filterBar } from "./filter_bar.js";
import { loginForm, logout } from "./login.js";
import { logsView } from "./logs.js";
import { measurementView } from "./measurement.js";
import { defaultRange } from "./default_range.js";
import * as session from "./session.js";
import * as state from "./state.js";
import { followTheme, nextTheme, themeLabel } from "./theme.js";
import { showUtc, zone } from "./time.js";
import { unitView } from "./unit.js";
import { yieldView } from "./yield.js";

/** @typedef {{ root: HTMLElement, update(params: URLSearchParams): void, close(): void }} View */

/** @type {{ [name in state.ViewName]: () => View }} */
const MAKE = { logs: logsView, yield: yieldView, failures: failuresView, measurement: measurementView, unit: unitView };

/** @type {{ name: state.ViewName, view: View } | null} */
let shown = null;
/** @type {{ root: HTMLElement, update(): void } | null} */
let shell = null;

function makeShell() {
  const bar = filterBar();
  const main = element("main", { id: "main", tabindex: -1 });
  const links = state.VIEWS.map(([name, label]) => ({ name, link: element("a", {}, label) }));
  const zoneButton = button("", toggleZone, { class: "quiet", title: "Key u" });
  const themeButton = button("", () => {
    nextTheme();
    update();
  }, { class: "quiet" });
  const user = session.username();
  const root = element(
    "div", { class: "shell" },
    element("a", { class: "skip", href: "#main", click: (/** @type {Event} */ event) => {
      event.preventDefault();
      main.focus();
    } }, "Skip to the content"),
    element("header", { class: "top" },
      element("a", { class: "brand", href: "#/logs" }, element("span", { class: "logo", "aria-hidden": "true" }), element("h1", {}, "Factory Logs")),
      element("nav", { "aria-label": "Views" }, links.map(({ link }) => link)),
      element("div", { class: "settings" }, zoneButton, themeButton,
        button(user === "" ? "Log out" : `Log out ${user}`, () => void logout(), { class: "quiet" }))),
    bar.root, main,
  );
  const update = () => {
    const { view, params } = state.read();
    for (const { name, link } of links) {
      link.href = state.link(name);
      if (name === view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const isUtc = params.get("utc") === "1";
    zoneButton.textContent = isUtc ? "UTC" : `Local: ${zone()}`;
    zoneButton.setAttribute("aria-label", `${zoneButton.textContent}, change to ${isUtc ? "local time" : "UTC"}`);
    themeButton.textContent = themeLabel();
    bar.root.hidden = view === "unit";
    bar.update(params);
    document.title = `${state.VIEWS.find(([name]) => name === view)?.[1]} · Factory Logs`;
    if (shown?.name !== view) {
      shown?.view.close();
      shown = { name: view, view: MAKE[view]() };
      main.replaceChildren(shown.view.root);
    }
    shown.view.update(params);
  };
  return { root, update };
}

function toggleZone() {
  const { params } = state.read();
  state.go({ utc: params.get("utc") === "1" ? null : "1" }, { replace: true });
  announce(`Times are in ${zone()}`);
}

async function update() {
  if (session.token() === null) {
    shown?.view.close();
    shown = shell = null;
    document.title = "Log in · Factory Logs";
    document.body.replaceChildren(loginForm(), liveRegion());
    document.querySelector("input")?.focus();
    return;
  }
  const { view, params } = state.read();
  showUtc(params.get("utc") === "1");
  if (shell === null) {
    shell = makeShell();
    document.body.replaceChildren(shell.root, liveRegion(), hatch());
  }
  const open = !["range", "from", "to"].some((name) => params.has(name)) && view !== "unit";
  // In a link without a range, the range ends at the newest log that the filters select.
  if (open) {
    const range = await defaultRange(queryFilters(params));
    if (range !== null) return state.go(range, { replace: true });
  }
  shell?.update();
}

addEventListener("state", () => void update());
addEventListener("popstate", () => void update());
addEventListener("session", () => void update());
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
  if (event.key === "u" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && shell !== null) toggleZone();
});
followTheme();
void update();
