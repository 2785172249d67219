// Values as people read them.

const store = window.localStorage;

let zone = store.getItem("aiotrack-zone") === "utc" ? "UTC" : undefined;

export const isUtc = () => zone === "UTC";

/** Show times in UTC, or where the reader is. */
export function setUtc(is) {
  zone = is ? "UTC" : undefined;
  store.setItem("aiotrack-zone", is ? "utc" : "local");
}

const part = (at, options) =>
  new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...options }).format(at);

const DAY = { day: "numeric", month: "short" };
const CLOCK = { hour: "2-digit", minute: "2-digit", second: "2-digit" };

/** The time of today; of other days the date too, of other years all of it. */
export function time(text) {
  const at = new Date(text);
  const clock = part(at, CLOCK);
  const now = new Date();
  const full = { ...DAY, year: "numeric" };
  if (part(at, full) === part(now, full)) return clock;
  const isThisYear = part(at, { year: "numeric" }) === part(now, { year: "numeric" });
  return `${part(at, isThisYear ? DAY : full)} ${clock}`;
}

/** All of a time, with its zone. */
export function exactly(text) {
  const at = new Date(text);
  return part(at, { ...DAY, year: "numeric", ...CLOCK, fractionalSecondDigits: 3, timeZoneName: "short" });
}

/** A time that a reader typed, where he sees times; one with an offset, and what is none, are left to the API. */
export function moment(text, isEnd = false) {
  const [, day, clock] = /^(\d{4}-\d\d-\d\d)(?:[T ]+(\d\d:\d\d(?::\d\d(?:\.\d+)?)?))?$/.exec(text) ?? [];
  const at = new Date(`${day}T${clock ?? (isEnd ? "23:59:59.999" : "00:00")}${isUtc() ? "Z" : ""}`);
  return Number.isNaN(at.getTime()) ? text : at.toISOString();
}

/** A time on an axis, whose steps are so many milliseconds apart. */
export function tick(at, step) {
  if (step >= 20 * 3600e3) return part(at, DAY);
  const clock = part(at, { hour: "2-digit", minute: "2-digit" });
  return step >= 3600e3 ? `${part(at, { weekday: "short" })} ${clock}` : clock;
}

/** Seconds, by the largest unit that tells. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${+(seconds * 1000).toPrecision(3)} ms`;
  if (seconds < 60 && Number.isInteger(seconds)) return `${seconds} s`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return two(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return two(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return two(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

const two = (many, unit, rest, small) => `${many} ${unit}${rest ? ` ${rest} ${small}` : ""}`;

/** How long ago, or in how long. */
export function ago(text) {
  const seconds = (Date.now() - new Date(text).getTime()) / 1000;
  const size = Math.abs(seconds);
  if (size < 1) return "now";
  const told = duration(size < 60 ? Math.round(size) : size);
  return seconds > 0 ? `${told} ago` : `in ${told}`;
}

export const number = (value) => (typeof value === "number" ? value.toLocaleString("en-GB") : "–");

/** A share of one, in per cent. */
export function share(value) {
  if (value === null || value === undefined) return "–";
  const percent = value * 100;
  return `${percent > 0 && percent < 10 ? percent.toFixed(1) : Math.round(percent)} %`;
}

export function bytes(size) {
  if (size === null || size === undefined) return "–";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (size < 1000 || unit === "GB") return `${size < 10 && unit !== "B" ? size.toFixed(1) : Math.round(size)} ${unit}`;
    size /= 1000;
  }
}

/** The last part of a long id is what tells ids apart. */
export const short = (id) => (id.length > 14 ? `…${id.slice(-10)}` : id);

/** What fits into a line is one; the text has line breaks of its own only between values. */
export function json(value) {
  const text = JSON.stringify(value, null, 2) ?? "–";
  const line = text.replace(/([[{])\n */g, "$1").replace(/\n *([\]}])/g, "$1").replace(/\n */g, " ");
  return line.length <= 60 ? line : text;
}

export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
