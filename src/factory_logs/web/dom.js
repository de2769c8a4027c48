/**
 * Create elements. Text becomes only text nodes and attribute values. Neither this module nor its callers parse
 * markup, so a log's value cannot become an element or a script.
 *
 * @typedef {Node | string | number | null | undefined | false} Child
 * @typedef {{ [name: string]: string | number | boolean | null | undefined | ((event: any) => void) }} Attributes
 */

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} [attributes] a function listens for the event of that name; true sets an empty attribute;
 *   false, null and undefined set none
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/**
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Attributes} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

/**
 * @template {Element} E
 * @param {E} made
 * @param {Attributes} attributes
 * @param {(Child | Child[])[]} children
 * @returns {E}
 */
function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) {
      made.append(child instanceof Node ? child : String(child));
    }
  }
  return made;
}

/**
 * @param {string} label
 * @param {() => void} press
 * @param {Attributes} [attributes]
 */
export function button(label, press, attributes = {}) {
  return element("button", { type: "button", click: press, ...attributes }, label);
}

/**
 * Return a control with its label.
 *
 * @param {string} label
 * @param {HTMLElement} control
 */
export function labelled(label, control) {
  return element("label", { class: "labelled" }, element("span", {}, label), control);
}

/**
 * @param {[value: string, label: string][]} choices
 * @param {string} chosen
 * @param {(value: string) => void} choose
 * @param {Attributes} [attributes]
 */
export function select(choices, chosen, choose, attributes = {}) {
  const made = element(
    "select",
    { change: () => choose(made.value), ...attributes },
    choices.map(([value, label]) => element("option", { value, selected: value === chosen }, label)),
  );
  return made;
}

/**
 * Return a function that calls `call` once, `wait` after the last of several quick calls.
 *
 * @template {unknown[]} A
 * @param {(...values: A) => void} call
 * @param {number} [wait] milliseconds
 */
export function debounced(call, wait = 350) {
  let timer = 0;
  return (/** @type {A} */ ...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), wait);
  };
}

const live = element("p", { class: "hidden-text", role: "status", "aria-live": "polite" });

/** Return the region whose text screen readers announce. It must be in the document. */
export function liveRegion() {
  return live;
}

/** @param {string} text */
export function announce(text) {
  live.textContent = text;
}

/** @param {string} text */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard API needs HTTPS and permission; this older way needs neither.
    const area = element("textarea", { class: "hidden-text", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  announce("Copied");
}
