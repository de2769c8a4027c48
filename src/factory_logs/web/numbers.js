/** Format numbers for display. */

import { isDigits } from "./api.js";

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** @param {number} number */
export function count(number) {
  return whole.format(number);
}

/** @param {number} number */
export function compact(number) {
  return number < 10_000 ? whole.format(number) : short.format(number);
}

/** @param {number | null | undefined} share */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  // Never round 99.96 % up to 100 %, or 0.04 % down to 0 %.
  const digits = share > 0.9995 && share < 1 ? 3 : share > 0.99 && share < 1 ? 2 : 1;
  return `${Number((100 * share).toFixed(digits))} %`;
}

const DIGITS = 6;
const MOST_DIGITS = 17;
/** JavaScript writes the integers of more digits with an exponent. */
const LONGEST = 21;

/**
 * Return a number with six digits, or more if its integer part has more. An integer that a double cannot represent keeps
 * all its digits.
 *
 * @param {unknown} number
 * @param {number} [digits]
 */
export function measured(number, digits = DIGITS) {
  if (isDigits(number)) return JSON.stringify(number);
  if (typeof number !== "number" || !Number.isFinite(number)) return "–";
  const before = number === 0 ? 1 : Math.floor(Math.log10(Math.abs(number))) + 1;
  return Number(number.toPrecision(before > LONGEST ? digits : Math.min(Math.max(digits, before), MOST_DIGITS))).toString();
}

/**
 * Return the numbers of an axis as text, with as many digits as tell them apart.
 *
 * @param {number[]} numbers
 * @param {(number: number, digits?: number) => string} format
 */
export function apart(numbers, format) {
  for (let digits = DIGITS; digits < MOST_DIGITS; digits++) {
    const texts = numbers.map((number) => format(number, digits));
    if (new Set(texts).size === texts.length) return texts;
  }
  return numbers.map((number) => format(number, MOST_DIGITS));
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const unit = bytes < 1024 ** 2 ? 1 : bytes < 1024 ** 3 ? 2 : 3;
  return `${(bytes / 1024 ** unit).toFixed(1)} ${["B", "KiB", "MiB", "GiB"][unit]}`;
}

/**
 * Return the round steps of an axis.
 *
 * @param {number} from
 * @param {number} to
 * @param {number} about how many
 */
export function ticks(from, to, about) {
  if (!(to > from)) return [from];
  const rough = (to - from) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999) ?? 10 * power;
  const first = Math.ceil(from / step - 1e-9);
  const found = new Set();
  // Not until a tick is above `to`: adding 1 does not change a number of 2^53 or more.
  for (let index = 0; index <= 2 * about; index++) {
    const tick = (first + index) * step + 0; // never -0
    if (tick <= to + step * 1e-9) found.add(tick);
  }
  return [...found];
}

/** Format a capability index. @param {number | null} number */
export function index(number) {
  return number === null ? "–" : number.toFixed(2);
}
