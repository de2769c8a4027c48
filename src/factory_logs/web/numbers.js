/** Format numbers for display. */

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

/** @param {number | null | undefined} number */
export function measured(number) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  return Number(number.toPrecision(6)).toString();
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
  const found = [];
  for (let index = Math.ceil(from / step - 1e-9); index * step <= to + step * 1e-9; index++) found.push(index * step + 0); // never -0
  return found;
}

/** Format a capability index. @param {number | null} number */
export function index(number) {
  return number === null ? "–" : number.toFixed(2);
}
