/* The log of the monitor, newest line first. */

import { byId, html, keyed } from "./dom.js";
import { exactTime, iso, time } from "./format.js";

const LEVELS = { info: "·", warn: "▲", error: "✕" };
const KEPT = 200;

const keyOf = (line) => `${line.at} ${line.level} ${line.text}`;

/** The lines of both, each once, oldest first, not more than are kept. */
export function mergeLines(seen, told) {
  const lines = new Map([...seen, ...told].map((line) => [keyOf(line), line]));
  return [...lines.values()].sort((a, b) => a.at - b.at).slice(-KEPT);
}

function makeLine(line) {
  const level = line.level in LEVELS ? line.level : "info";
  return html("li", { class: `line ${level}` },
    html("time", { datetime: iso(line.at), title: exactTime(line.at) }, time(line.at)),
    html("span", { class: "level" },
      html("span", { "aria-hidden": "true" }, LEVELS[level]), ` ${line.level}`),
    html("span", { class: "text" }, line.text));
}

export function showLog(lines, onlyWarnings) {
  const shown = lines.filter((line) => !onlyWarnings || line.level !== "info").reverse();
  const empty = byId("no-log");
  empty.hidden = shown.length > 0;
  empty.textContent = lines.length ? "No warnings, no errors." : "Nothing was logged yet.";
  keyed(byId("log"), shown, keyOf, makeLine, () => {});
}
