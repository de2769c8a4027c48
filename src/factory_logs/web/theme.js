/** The light and the dark theme: as chosen by the button, which this browser remembers, or else as the system prefers. */

/** @type {[string, string][]} */
const THEMES = [["auto", "Theme: system"], ["light", "Theme: light"], ["dark", "Theme: dark"]];
const KEY = "factory-logs-theme";
const PREFERS_DARK = matchMedia("(prefers-color-scheme: dark)");

function chosen() {
  const name = localStorage.getItem(KEY);
  return Math.max(0, THEMES.findIndex((theme) => theme[0] === name));
}

function show() {
  const name = THEMES[chosen()]?.[0] ?? "auto";
  document.documentElement.dataset.theme = name === "auto" ? (PREFERS_DARK.matches ? "dark" : "light") : name;
}

/** Return the label of the chosen theme. */
export function themeLabel() {
  return THEMES[chosen()]?.[1] ?? "";
}

/** Choose the next theme, and show it. */
export function nextTheme() {
  localStorage.setItem(KEY, THEMES[(chosen() + 1) % THEMES.length]?.[0] ?? "auto");
  show();
}

/** Show the chosen theme, and follow the system from now on. */
export function followTheme() {
  show();
  PREFERS_DARK.addEventListener("change", show);
}
