/* Numbers and times for people; null is what nobody knows. */

export const UNKNOWN = "–";
const THIN = "\u202f";

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const clockWithZone = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short",
});
const minute = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** 1234567 as "1 234 567", with thin spaces that do not break. */
export function whole(number) {
  if (number === null || number === undefined) return UNKNOWN;
  const sign = number < 0 ? "−" : "";
  const digits = String(Math.abs(Math.round(number)));
  return sign + digits.replace(/\B(?=(\d{3})+$)/g, THIN);
}

/** "1.2", "12.3", "123". */
function short(number) {
  return Math.abs(number) >= 100 ? whole(number) : number.toFixed(1);
}

/** "512 B", "12.3 MiB". */
export function bytes(number) {
  if (number === null || number === undefined) return UNKNOWN;
  let left = number;
  let unit = "B";
  for (const larger of ["KiB", "MiB", "GiB", "TiB", "PiB"]) {
    if (Math.abs(left) < 1024) break;
    left /= 1024;
    unit = larger;
  }
  return unit === "B" ? `${whole(left)} B` : `${short(left)} ${unit}`;
}

/** "0.40 ms", "3.4 ms", "1.2 s", "2 min 5 s", "3 h 12 min", "5 d 3 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  if (seconds < 0) return `−${duration(-seconds)}`;
  const ms = seconds * 1000;
  if (seconds === 0) return "0 s";
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${short(ms)} ms`;
  if (seconds < 59.5) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const total = Math.round(seconds);
  if (total < 3600) return `${Math.floor(total / 60)} min ${total % 60} s`;
  if (total < 86400) return `${Math.floor(total / 3600)} h ${Math.floor((total % 3600) / 60)} min`;
  return `${Math.floor(total / 86400)} d ${Math.floor((total % 86400) / 3600)} h`;
}

/** As `duration`, for what is told in whole seconds: "8 s". */
export function age(seconds) {
  return seconds < 59.5 ? `${Math.max(0, Math.round(seconds))} s` : duration(seconds);
}

/** How old the lag is told to be: always in seconds. */
export function lagSeconds(seconds) {
  return seconds === null || seconds === undefined ? UNKNOWN : `${seconds.toFixed(1)} s`;
}

/** "0/s", "9.5/s", "1 240/s". */
export function rate(number) {
  if (number === null || number === undefined) return UNKNOWN;
  return number === 0 ? "0/s" : `${short(number)}/s`;
}

/** "none", "1 234 bytes", "not known yet". */
export function discarded(count) {
  if (count === null || count === undefined) return "not known yet";
  if (count === 0) return "none";
  return `${whole(count)} ${count === 1 ? "byte" : "bytes"}`;
}

const date = (at) => new Date(at * 1000);

/** "12:03:05", the local time. */
export const time = (at) => clock.format(date(at));

/** "12:03:05 CET". */
export const timeWithZone = (at) => clockWithZone.format(date(at));

/** "12:03". */
export const minutes = (at) => minute.format(date(at));

/** "2 Mar 2026". */
export const calendarDay = (at) => day.format(date(at));

/** The time with its day, unless that is today (`now` in seconds). */
export function when(at, now) {
  const same = calendarDay(at) === calendarDay(now);
  return same ? timeWithZone(at) : `${calendarDay(at)}, ${timeWithZone(at)}`;
}

/** The exact time, for a title: local, then in UTC with milliseconds. */
export function exactTime(at) {
  return `${calendarDay(at)}, ${timeWithZone(at)} (${date(at).toISOString()})`;
}

export const iso = (at) => date(at).toISOString();

/** What stands in a title for a number: all of its digits, with its unit. */
export function exact(number, unit) {
  return number === null || number === undefined ? "not known" : `${number} ${unit}`.trim();
}
