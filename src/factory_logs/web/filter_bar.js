/** The filter bar of the views: time range, chosen filters and typed `q`. */

import { button, debounced, element, labelled, select } from "./dom.js";
import { OPERATORS, parseFilters, freeFilters, inWords, toggled, typedValue, written } from "./filters.js";
import { COLUMNS } from "./paths.js";
import * as state from "./state.js";
import { RANGES, fromControl, milliseconds, timeRange, show, toControl } from "./time.js";

/** Field names in the loaded logs, offered as completions. */
const seen = new Set(COLUMNS);
const names = element("datalist", { id: "field-names" });

/** @param {Iterable<string>} found */
export function offerNames(found) {
  const before = seen.size;
  for (const name of found) if (seen.size < 500) seen.add(name);
  if (seen.size !== before || names.childElementCount === 0) names.replaceChildren(...[...seen].map((value) => element("option", { value })));
}

/** @param {string} value @param {Record<string, any>} [attributes] */
export function fieldInput(value, attributes = {}) {
  return element("input", { list: "field-names", value, spellcheck: "false", autocapitalize: "off", ...attributes });
}

export function filterBar() {
  offerNames([]);
  const range = element("select", {
    "aria-label": "Time range",
    change: () => {
      if (range.value === "custom") openCustom();
      else state.go({ range: range.value, from: null, to: null });
    },
  });
  const from = element("input", { type: "datetime-local", step: 1, name: "from" });
  const to = element("input", { type: "datetime-local", step: 1, name: "to" });
  const custom = element(
    "form", {
      class: "custom", hidden: true,
      submit: (/** @type {Event} */ event) => {
        event.preventDefault();
        const [begin, end] = [fromControl(from.value), fromControl(to.value)];
        if (begin >= end) {
          to.setCustomValidity("The end must be after the beginning");
          to.reportValidity();
          return;
        }
        state.go({
          range: null,
          from: Number.isNaN(begin) ? null : new Date(begin).toISOString(),
          to: Number.isNaN(end) ? null : new Date(end).toISOString(),
        });
      },
    },
    labelled("From", from), labelled("To", to), element("button", { type: "submit" }, "Apply"),
  );
  to.addEventListener("input", () => to.setCustomValidity(""));
  const openCustom = () => {
    custom.hidden = false;
    from.focus();
  };

  const chips = element("ul", { class: "chips", "aria-label": "Filters" });
  const name = fieldInput("", { "aria-label": "Field", placeholder: "field, such as tags__jig_id", required: true });
  const operator = select(OPERATORS, "==", () => {
    value.hidden = operator.value.startsWith("is_");
  }, { "aria-label": "Operator" });
  const value = element("input", { "aria-label": "Value", placeholder: "value", spellcheck: "false" });
  const adding = element(
    "form", {
      class: "adding", hidden: true,
      submit: (/** @type {Event} */ event) => {
        event.preventDefault();
        const filter = /** @type {import("./filters.js").Filter} */ ([
          name.value.trim(), operator.value, operator.value.startsWith("is_") ? null : typedValue(name.value.trim(), value.value),
        ]);
        state.go({ f: written(toggled(parseFilters(state.read().params), filter)), log: null });
        name.value = value.value = "";
        adding.hidden = true;
        add.focus();
      },
    },
    name, operator, value, element("button", { type: "submit" }, "Add"),
  );
  const add = button("+ Filter", () => {
    adding.hidden = !adding.hidden;
    if (!adding.hidden) name.focus();
  });
  const problem = element("p", { class: "error", id: "q-problem", hidden: true });
  const typed = element("input", {
    class: "free", type: "search", "aria-label": "Query q as JSON, or the 15 digits of a unit", "aria-describedby": "q-problem",
    placeholder: "IMEI, or q: [{\"name\": \"fields__voltage\", \"op\": \"<\", \"val\": 3.2}]", spellcheck: "false", name: "q",
    input: debounced(() => {
      const { error } = freeFilters(typed.value);
      problem.hidden = error === null;
      problem.textContent = error ?? "";
      typed.setAttribute("aria-invalid", String(error !== null));
      if (error === null) state.go({ q: typed.value.trim(), log: null }, { replace: true });
    }),
  });
  const span = element("span", { class: "hint span" });
  const root = element(
    "search", { class: "filter-bar", "aria-label": "Filters" },
    element("div", { class: "row" }, range, custom, typed, add),
    element("div", { class: "row" }, adding, chips, span), problem, names,
  );

  /** @param {URLSearchParams} params */
  const update = (params) => {
    const isCustom = params.has("from") || params.has("to");
    const chosen = isCustom ? "custom" : params.get("range") ?? "all";
    const known = [...RANGES, .../** @type {[string, string][]} */ ([["custom", "From … to …"]])];
    if (!known.some(([code]) => code === chosen)) known.unshift([chosen, milliseconds(chosen) === null ? "All time" : `Last ${chosen}`]);
    range.replaceChildren(...known.map(([code, text]) => element("option", { value: code, selected: code === chosen }, text)));
    custom.hidden = !isCustom;
    const limits = timeRange(params);
    if (isCustom) {
      from.value = limits.from === null ? "" : toControl(limits.from);
      to.value = limits.to === null ? "" : toControl(limits.to);
    }
    span.textContent = limits.from === null || isCustom ? "" : `since ${show(limits.from)}`;
    if (document.activeElement !== typed && typed.value !== (params.get("q") ?? "")) {
      typed.value = params.get("q") ?? "";
      problem.hidden = true;
      typed.removeAttribute("aria-invalid");
    }
    const filters = parseFilters(params);
    chips.replaceChildren(
      ...filters.map((filter) => element("li", { class: filter[1].startsWith("not") || filter[1] === "is_null" ? "chip exclude" : "chip" },
        element("span", { title: inWords(filter) }, inWords(filter)),
        button("×", () => state.go({ f: written(filters.filter((other) => other !== filter)), log: null }), { "aria-label": `Remove the filter ${inWords(filter)}` }))),
      ...(filters.length + (params.get("q") ? 1 : 0) > 1 ? [element("li", {}, button("Clear all", () => state.go({ f: null, q: null, log: null }), { class: "link" }))] : []),
    );
    chips.hidden = chips.childElementCount === 0;
  };
  return { root, update };
}
