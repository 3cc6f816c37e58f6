// Numbers and times as people read them. Pure functions.

export const PAGE_SIZE = 4096;

const NARROW = "\u00a0";

/** `1536` → `1.5 KiB`. */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = count;
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return (unit === 0 ? String(Math.round(value)) : digits(value)) + NARROW + units[unit];
}

/** Three digits that count; no `.0` behind a whole number. */
function digits(value) {
  const text = value >= 99.95 ? value.toFixed(0) : value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** `4.817` → `4.82 ms`, `12877` → `12.9 s`. */
export function duration(ms) {
  if (ms < 999.5) return digits(ms) + NARROW + "ms";
  if (ms < 99_950) return digits(ms / 1000) + NARROW + "s";
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 100) return `${minutes}${NARROW}min${NARROW}${Math.floor((ms % 60_000) / 1000)}${NARROW}s`;
  return `${Math.floor(minutes / 60)}${NARROW}h${NARROW}${minutes % 60}${NARROW}min`;
}

/** `2, "page"` → `2 pages`. */
export function count(number, noun) {
  return `${number.toLocaleString("en").replaceAll(",", NARROW)}${NARROW}${noun}${number === 1 ? "" : "s"}`;
}

/** The beginning of an id, enough for the command line to know it. */
export function short(id) {
  return id.slice(0, 12);
}

const two = (number) => String(number).padStart(2, "0");
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** A moment in full, in the reader's time zone. */
export function moment(unix_ms) {
  const at = new Date(unix_ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(at)}`;
}

/** A moment as briefly as it stays clear: today the time, this year the day with it. */
export function brief(unix_ms, now = new Date()) {
  const at = new Date(unix_ms);
  if (at.toDateString() === now.toDateString()) return clock(at);
  const day = `${at.getDate()}${NARROW}${MONTHS[at.getMonth()]}`;
  const isThisYear = at.getFullYear() === now.getFullYear();
  return isThisYear ? `${day} ${clock(at).slice(0, 5)}` : `${day} ${at.getFullYear()}`;
}

function clock(at) {
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}
