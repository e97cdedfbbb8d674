/* The nodes and the failovers: tables, which a narrow screen shows as cards. */

import { byId, html, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const { exact, UNKNOWN } = format;

/* What a status means in one glance: its shape, and its class. */
const STATUS = {
  up: ["●", "good"], dialling: ["◌", "doubt"], "dropped, redialling": ["◌", "doubt"],
  silent: ["▲", "bad"], refused: ["✕", "bad"], denied: ["■", "bad"], closed: ["○", "doubt"],
};
const LINK = { up: "in sync", syncing: "resyncing", down: "link down" };

/** What is wrong with a node, or special: sentences without their full stops. */
export function remarks(node) {
  const said = [];
  if (node.reason) said.push(node.reason);
  if (node.loading) said.push("it is loading its data");
  if (node.priority === 0) said.push("priority 0: never promoted");
  if (node.missing_rights && node.missing_rights.length) {
    said.push(`missing rights: ${node.missing_rights.join(" ")}`);
  }
  return said;
}

/** The word for how a node is reached and whether it replicates: "up", "up, link down". */
export function statusWords(node) {
  const link = node.role === "replica" && node.status === "up" && LINK[node.link];
  return link ? `${node.status}, ${link}` : node.status;
}

/* Of each column: its heading; its text, a second line and the title for a row; its classes. */
const NODE_COLUMNS = [
  { head: "Node", text: (n) => n.node, title: (n) => n.node, kind: "text" },
  { head: "Role", text: roleWords, title: followsWords, kind: "text" },
  { head: "Status", text: statusWords, note: (n) => remarks(n).join("; "), title: statusWords,
    kind: "text" },
  { head: "Lag", text: (n) => (n.role === "master" ? UNKNOWN : format.bytes(n.lag_bytes)),
    note: (n) => (n.role === "master" || n.lag_seconds === null
      ? "" : format.lagSeconds(n.lag_seconds)), title: lagTitle },
  { head: "Offset", text: (n) => format.whole(n.offset), title: (n) => exact(n.offset, "bytes") },
  { head: "Opcounter", text: (n) => format.whole(n.opcounter),
    title: (n) => exact(n.opcounter, "writes counted") },
  { head: "Memory", text: (n) => format.bytes(n.memory_bytes),
    note: (n) => (n.memory_max_bytes ? `of ${format.bytes(n.memory_max_bytes)}` : ""),
    title: memoryTitle },
  { head: "Clients", text: (n) => format.whole(n.connected_clients),
    title: (n) => exact(n.connected_clients, "connections") },
  { head: "Commands", text: (n) => format.rate(n.commands_per_second),
    title: (n) => exact(n.commands_per_second, "commands per second") },
  { head: "Latency", text: (n) => format.duration(n.latency_seconds),
    title: (n) => exact(n.latency_seconds, "s") },
  { head: "Version", text: (n) => n.version || UNKNOWN,
    note: (n) => (n.uptime_seconds === null ? "" : `up for ${format.age(n.uptime_seconds)}`),
    title: (n) => (n.version ? `up for ${exact(n.uptime_seconds, "s")}` : "not known"),
    kind: "text" },
  { head: "Epoch", text: (n) => format.whole(n.epoch), title: (n) => exact(n.epoch, "") },
];

function roleWords(node, master) {
  if (node.role === null) return "not known";
  if (node.role === "master" && node.node !== master) return "master, not ours";
  return node.role;
}

function followsWords(node) {
  return node.follows ? `follows ${node.follows}` : "follows nobody";
}

function lagTitle(node) {
  if (node.role === "master") return "a master has no lag";
  return `${exact(node.lag_bytes, "bytes")}, ${exact(node.lag_seconds, "s")}`;
}

function memoryTitle(node) {
  const limit = node.memory_max_bytes;
  return `${exact(node.memory_bytes, "bytes used")}, ` +
    (limit ? `at most ${limit} bytes` : limit === 0 ? "no limit" : "limit not known");
}

/* The roles stand in the markup because a table that is shown as cards would lose them. */
function headings(columns) {
  return html("thead", { role: "rowgroup" }, html("tr", { role: "row" }, ...columns.map(
    ({ head, kind = "number" }) => html("th", { scope: "col", role: "columnheader", class: kind },
      head),
  )));
}

function makeRow(columns) {
  return html("tr", { role: "row" }, ...columns.map(({ head, kind = "number", note }, i) => html(
    i === 0 ? "th" : "td",
    { scope: i === 0 ? "row" : null, role: i === 0 ? "rowheader" : "cell", "data-label": head,
      class: kind },
    html("span", { class: "value" }), note ? html("span", { class: "note" }) : "",
  )));
}

function bodyOf(table, columns) {
  if (!table.tBodies.length) table.append(headings(columns), html("tbody", { role: "rowgroup" }));
  return table.tBodies[0];
}

/** Put a text into a cell; the dash of what is unknown is read as words. */
function setCell(cell, text, title, note) {
  const value = cell.querySelector(".value");
  const nothing = text === UNKNOWN;
  cell.classList.toggle("nothing", nothing && !note);
  setAttribute(value, "title", title);
  if (!nothing) {
    setText(value, text);
  } else if (value.textContent !== UNKNOWN + title) {
    value.replaceChildren(
      html("span", { "aria-hidden": "true" }, UNKNOWN), html("span", { class: "unseen" }, title),
    );
  }
  const second = cell.querySelector(".note");
  if (second) setText(second, note);
}

function fillRow(row, columns, item, context) {
  columns.forEach(({ text, note, title }, i) => setCell(
    row.cells[i], text(item, context), title(item), note ? note(item) : "",
  ));
}

export function showNodes(cluster) {
  const body = bodyOf(byId("nodes"), NODE_COLUMNS);
  keyed(body, cluster.nodes, (node) => node.node, () => {
    const row = makeRow(NODE_COLUMNS);
    row.cells[2].prepend(html("span", { class: "mark", "aria-hidden": "true" }));
    return row;
  }, (row, node) => {
    fillRow(row, NODE_COLUMNS, node, cluster.master);
    const [mark, kind] = STATUS[node.status] || ["?", "doubt"];
    const sick = kind === "good" && node.role === "replica" && node.link !== "up";
    const ours = node.node === cluster.master;
    setAttribute(row, "class", `${sick ? "doubt" : kind}${ours ? " ours" : ""}`);
    setText(row.querySelector(".mark"), sick ? "◐" : mark);
  });
}

function offsetsTitle(record) {
  const age = record.old_offset_age === null
    ? "" : `, ${record.old_offset_age} s before it was lost`;
  return `the new master's at its promotion: ${exact(record.offset, "bytes")}; ` +
    `the newest known of the old one: ${exact(record.old_offset, "bytes")}${age}`;
}

/** Bytes that are lost; none when the new master had all that the old one let go with. */
function discarded(record) {
  const whole = record.planned && record.offset !== null && record.offset === record.old_offset;
  return record.discarded ?? (whole ? 0 : null);
}

const HISTORY_COLUMNS = [
  { head: "When", text: (r, now) => format.when(r.at, now), title: (r) => format.exactTime(r.at),
    kind: "text" },
  { head: "From", text: (r) => r.old || UNKNOWN, title: (r) => r.old || "nobody, or not known",
    kind: "text place" },
  { head: "To", text: (r) => r.new, title: (r) => r.new, kind: "text place" },
  { head: "Kind", text: (r) => (r.planned ? "planned" : "not planned"),
    note: (r) => `epoch ${format.whole(r.epoch)}`, title: (r) => r.seen,
    kind: "text kind" },
  { head: "Outage", text: (r) => format.duration(r.outage), title: (r) => exact(r.outage, "s") },
  { head: "Discarded", text: (r) => (r.old ? format.discarded(discarded(r)) : UNKNOWN),
    title: (r) => (r.old ? exact(discarded(r), "bytes") : "nobody was the master before") },
  { head: "Offset", text: (r) => format.whole(r.offset),
    note: (r) => (r.old_offset === null ? "" : `old one ${format.whole(r.old_offset)}`),
    title: offsetsTitle },
  { head: "Reason", text: (r) => r.reason || UNKNOWN, title: (r) => r.reason || "not known",
    kind: "text wide" },
  { head: "Why this one", text: (r) => r.why || UNKNOWN, title: (r) => r.why || "not known",
    kind: "text wide" },
];
const SHOWN = 5;

let all = false;

/** Show the failovers, newest first: the newest until all are asked for. */
export function showHistory(failovers, now) {
  byId("no-history").hidden = failovers.length > 0;
  const table = byId("history");
  table.hidden = failovers.length === 0;
  keyed(bodyOf(table, HISTORY_COLUMNS), all ? failovers : failovers.slice(0, SHOWN),
    (record) => `${record.epoch} ${record.at}`,
    () => makeRow(HISTORY_COLUMNS), (row, record) => fillRow(row, HISTORY_COLUMNS, record, now));
  const button = byId("all-history");
  button.hidden = failovers.length <= SHOWN;
  setText(button, all ? `Show the newest ${SHOWN}` : `Show all ${failovers.length}`);
  button.onclick = () => {
    all = !all;
    showHistory(failovers, now);
  };
}
