/**
 * Convert and format times. The API uses UTC without a zone. The page uses milliseconds since 1970, and shows them in
 * the browser's zone or in UTC.
 */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const MONDAY = 4 * DAY;

/** @type {[string, string][]} */
export const RANGES = [
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["6h", "Last 6 hours"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
  ["30d", "Last 30 days"],
  ["90d", "Last 90 days"],
  ["all", "All time"],
];

/** @type {[string, number][]} */
const BUCKETS = [
  ["1s", SECOND], ["5s", 5 * SECOND], ["15s", 15 * SECOND], ["30s", 30 * SECOND], ["1m", MINUTE], ["5m", 5 * MINUTE],
  ["15m", 15 * MINUTE], ["30m", 30 * MINUTE], ["1h", HOUR], ["3h", 3 * HOUR], ["6h", 6 * HOUR], ["12h", 12 * HOUR],
  ["1d", DAY], ["1w", 7 * DAY], ["2w", 14 * DAY], ["4w", 28 * DAY], ["13w", 91 * DAY], ["52w", 364 * DAY],
];

let utc = false;

/** @param {boolean} wanted */
export function showUtc(wanted) {
  utc = wanted;
}

/** Return the IANA name of the shown time zone, for `tz`. */
export function zone() {
  return utc ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

/** @param {string} duration such as `24h` */
export function milliseconds(duration) {
  const [, number, unit] = /^(\d{1,4})([smhdw])$/.exec(duration) ?? [];
  if (number === undefined || unit === undefined) return null;
  return Number(number) * { s: SECOND, m: MINUTE, h: HOUR, d: DAY, w: 7 * DAY }[/** @type {"s"} */ (unit)];
}

/** @param {string} text of the API */
export function fromApi(text) {
  return Date.parse(`${text.replace(" ", "T")}Z`);
}

/** @param {number} time */
export function toApi(time) {
  return new Date(time).toISOString().replace("T", " ").replace("Z", "");
}

/** @param {number} time */
function parts(time) {
  const date = new Date(time);
  const pad = (/** @type {number} */ number, width = 2) => String(number).padStart(width, "0");
  return utc
    ? {
        day: `${pad(date.getUTCFullYear(), 4)}-${pad(date.getUTCMonth() + 1)}-${pad(date.getUTCDate())}`,
        minute: `${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}`,
        second: pad(date.getUTCSeconds()),
        fraction: pad(date.getUTCMilliseconds(), 3),
      }
    : {
        day: `${pad(date.getFullYear(), 4)}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`,
        minute: `${pad(date.getHours())}:${pad(date.getMinutes())}`,
        second: pad(date.getSeconds()),
        fraction: pad(date.getMilliseconds(), 3),
      };
}

/** @param {number} time */
export function show(time) {
  if (!Number.isFinite(time)) return "";
  const { day, minute, second } = parts(time);
  return `${day} ${minute}:${second}`;
}

/** @param {number} time */
export function showExactly(time) {
  return Number.isFinite(time) ? `${show(time)}.${parts(time).fraction}` : "";
}

/**
 * Format a time on an axis, as short as the step allows.
 *
 * @param {number} time
 * @param {number} step
 */
export function showTick(time, step) {
  const { day, minute, second } = parts(time);
  if (step >= DAY) return day;
  if (step < MINUTE) return `${minute}:${second}`;
  return minute === "00:00" || step >= 6 * HOUR ? `${day.slice(5)} ${minute}` : minute;
}

/** Return the value of a `datetime-local` control. @param {number} time */
export function toControl(time) {
  const { day, minute, second } = parts(time);
  return `${day}T${minute}:${second}`;
}

/** @param {string} value of a `datetime-local` control */
export function fromControl(value) {
  return value === "" ? NaN : Date.parse(utc ? `${value}Z` : value);
}

/** @typedef {{ from: number | null, to: number | null }} Range null means no bound */

/**
 * @param {URLSearchParams} params
 * @param {number} [now]
 * @returns {Range}
 */
export function timeRange(params, now = Date.now()) {
  const span = milliseconds(params.get("range") ?? "");
  // Round to the minute, so that a reopened view sends the same requests, whose results the service may have cached.
  if (span !== null) return { from: Math.floor((now - span) / MINUTE) * MINUTE, to: null };
  const from = Date.parse(params.get("from") ?? "");
  const to = Date.parse(params.get("to") ?? "");
  return { from: Number.isNaN(from) ? null : from, to: Number.isNaN(to) ? null : to };
}

/**
 * Return the bucket that results in about `bars` bars.
 *
 * @param {number} span milliseconds
 * @param {number} [bars]
 */
export function bucketFor(span, bars = 90) {
  const found = BUCKETS.find(([, length]) => span / length <= bars) ?? BUCKETS[BUCKETS.length - 1];
  return { name: /** @type {string} */ (found?.[0]), length: /** @type {number} */ (found?.[1]) };
}

/**
 * Return the end of a bucket. A day is longer or shorter than 24 hours if the clocks change.
 *
 * @param {number} begin
 * @param {number} length
 */
export function bucketEnd(begin, length) {
  if (utc || length < DAY) return begin + length;
  const date = new Date(begin);
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() + length / DAY).getTime();
}

/** Return the interval between the labels of a time axis. @param {number} span @param {number} labels */
function tickStep(span, labels) {
  const year = 364 * DAY;
  return BUCKETS.find(([, length]) => span / length <= labels)?.[1] ?? Math.ceil(span / labels / year) * year;
}

/**
 * Return the round times of an axis in the shown zone, and the interval between them. Intervals of hours and days keep to
 * the local clock if it changes, and weeks begin on Mondays.
 *
 * @param {number} from
 * @param {number} to
 * @param {number} labels the maximum number of times
 * @returns {{ times: number[], step: number }}
 */
export function axisTicks(from, to, labels) {
  const step = tickStep(to - from, labels);
  const offset = utc ? 0 : -new Date(from).getTimezoneOffset() * MINUTE;
  const origin = step % (7 * DAY) === 0 ? MONDAY : 0;
  const times = [];
  for (let clock = Math.ceil((from + offset - origin) / step) * step + origin; ; clock += step) {
    const time = utc || step <= HOUR ? clock - offset : atLocalClock(clock);
    if (!(time <= to)) return { times, step }; // also if it is not a number
    times.push(time);
  }
}

/** Return the time at which the local clock shows what `clock` shows in UTC. @param {number} clock */
function atLocalClock(clock) {
  const shown = new Date(clock);
  const date = new Date(0);
  date.setFullYear(shown.getUTCFullYear(), shown.getUTCMonth(), shown.getUTCDate());
  return date.setHours(shown.getUTCHours(), shown.getUTCMinutes(), 0, 0);
}
