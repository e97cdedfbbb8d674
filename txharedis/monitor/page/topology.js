/* A picture of the group: the master on top, its replicas below, drawn from what is known. */

import { setAttribute, svg } from "./dom.js";
import { bytes, lagSeconds, UNKNOWN, whole } from "./format.js";
import { statusWords } from "./tables.js";

const BOX = { width: 196, height: 54 };
const GAP = { x: 24, y: 74, narrow: 30 };
const PILL = 30;
const INDENT = 30;
const LETTERS = 22;
const LETTER = 6.6; // the width of one, of the labels of arrows, about

const LONGEST_ROLE = 30;

/** A long name without its middle: the port is at its end. */
const shortened = (text) =>
  text.length <= LETTERS ? text : `${text.slice(0, 9)}…${text.slice(10 - LETTERS)}`;

const cut = (text) =>
  text.length <= LONGEST_ROLE ? text : `${text.slice(0, LONGEST_ROLE - 1)}…`;

/** The nodes as a forest: [{node, depth, parent}], each after its parent, masters first. */
function arranged(cluster) {
  const names = new Map(cluster.nodes.map((node) => [node.node, node]));
  const parentOf = (node) =>
    node.role !== "master" && node.follows !== node.node && names.has(node.follows)
      ? names.get(node.follows) : null;
  const masters = cluster.nodes.filter((node) => node.role === "master");
  masters.sort((a, b) => (b.node === cluster.master) - (a.node === cluster.master));
  const placed = new Map();
  const place = (node, depth, parent) => {
    if (placed.has(node.node)) return;
    placed.set(node.node, { node, depth, parent });
    for (const child of cluster.nodes) {
      if (parentOf(child) === node) place(child, depth + 1, node);
    }
  };
  for (const node of masters) place(node, 0, null);
  // Without any, the replicas still hang on the one that they have lost.
  const lost = masters.length ? [] : cluster.nodes.filter(
    (node) => !parentOf(node) && cluster.nodes.some((other) => parentOf(other) === node),
  );
  for (const node of lost) place(node, 0, null);
  // The rest follows nobody that is there: it stands below, without an arrow.
  for (const node of cluster.nodes) if (!parentOf(node)) place(node, 1, null);
  for (const node of cluster.nodes) place(node, 1, null);
  return [...placed.values()];
}

function lagWords({ node, parent }) {
  if (node.status !== "up") return parent ? "not reached" : "";
  if (node.link === "syncing") return "full resync";
  if (node.link === "down") return "link down";
  if (!parent) return "";
  if (node.lag_bytes === null) return "lag not known";
  const seconds = lagSeconds(node.lag_seconds);
  return `lag ${bytes(node.lag_bytes)}${seconds === UNKNOWN ? "" : `, ${seconds}`}`;
}

function roleLine(node, cluster) {
  if (node.role === "master") {
    return `${node.node === cluster.master ? "MASTER" : "master, not ours"} · ${node.status}`;
  }
  return node.role === null ? node.status : `${node.role} · ${statusWords(node)}`;
}

function box({ node, x, y }, cluster) {
  const ours = node.node === cluster.master;
  const away = node.status !== "up";
  const group = svg("g", {
    class: `node${ours ? " ours" : ""}${away ? " away" : ""}`, transform: `translate(${x} ${y})`,
  }, svg("title", {}, `${node.node}, ${roleLine(node, cluster)}`),
  svg("rect", { width: BOX.width, height: BOX.height, rx: 8 }));
  if (ours) {
    group.append(svg("rect", {
      class: "inner", x: 4, y: 4, width: BOX.width - 8, height: BOX.height - 8, rx: 5,
    }));
  }
  group.append(
    svg("text", { class: "name", x: BOX.width / 2, y: 23, "text-anchor": "middle" },
      shortened(node.node)),
    svg("text", { class: "role", x: BOX.width / 2, y: 41, "text-anchor": "middle" },
      cut(roleLine(node, cluster))));
  return group;
}

function clientsPill(cluster, x, y) {
  const count = cluster.clients;
  const words = count === null ? "clients not known"
    : `${whole(count)} ${count === 1 ? "client" : "clients"}`;
  return svg("g", { class: `clients${count === null ? " away" : ""}`,
    transform: `translate(${x} ${y})` },
  svg("rect", { width: BOX.width, height: PILL, rx: PILL / 2 }),
  svg("text", { x: BOX.width / 2, y: 20, "text-anchor": "middle" }, words));
}

function nobody(x, y) {
  return svg("g", { class: "node away nobody", transform: `translate(${x} ${y})` },
    svg("rect", { width: BOX.width, height: BOX.height, rx: 8 }),
    svg("text", { class: "name", x: BOX.width / 2, y: 32, "text-anchor": "middle" }, "no master"));
}

function arrow(d, broken, label, x, y, anchor) {
  const width = label.length * LETTER + 8;
  return svg("g", { class: `arrow${broken ? " broken" : ""}` },
    svg("path", { d, "marker-end": "url(#arrowhead)" }),
    svg("rect", { x: anchor === "middle" ? x - width / 2 : x - 4, y: y - 13,
      width: label ? width : 0, height: 18 }),
    svg("text", { x, y, "text-anchor": anchor }, label));
}

function head() {
  return svg("defs", {}, svg("marker", {
    id: "arrowhead", viewBox: "0 0 10 10", refX: 9, refY: 5, markerWidth: 8, markerHeight: 8,
    markerUnits: "userSpaceOnUse", orient: "auto-start-reverse",
  }, svg("path", { class: "head", d: "M0 0L10 5L0 10z" })));
}

/** Rows beside each other; the arrows go straight down. */
function wide(items, cluster, width) {
  const depths = [...new Set(items.map((item) => item.depth))];
  const lacking = !depths.includes(0);
  const top = PILL + 34;
  for (const depth of depths) {
    const row = items.filter((item) => item.depth === depth);
    const taken = row.length * BOX.width + (row.length - 1) * GAP.x;
    const gap = row.length > 1 ? Math.min(GAP.x * 3, GAP.x + (width - taken) / row.length) : 0;
    const start = (width - row.length * BOX.width - (row.length - 1) * gap) / 2;
    row.forEach((item, i) => {
      item.x = start + i * (BOX.width + gap);
      item.y = top + depth * (BOX.height + GAP.y);
    });
  }
  const middle = (width - BOX.width) / 2;
  const first = lacking ? { x: middle, y: top } : items[0];
  const parts = [clientsPill(cluster, first.x, 2)];
  const centre = first.x + BOX.width / 2;
  parts.push(arrow(`M${centre} ${PILL + 4}V${first.y - 3}`, !cluster.master, "", 0, 0, "start"));
  if (lacking) parts.push(nobody(first.x, first.y));
  const at = new Map(items.map((item) => [item.node, item]));
  for (const item of items) {
    const x = item.x + BOX.width / 2;
    const label = lagWords(item);
    if (item.parent) {
      const from = at.get(item.parent);
      const start = from.x + BOX.width / 2;
      const [y1, y2] = [from.y + BOX.height + 2, item.y - 3];
      const broken = item.node.status !== "up" || item.node.link !== "up";
      parts.push(arrow(`M${start} ${y1}L${x} ${y2}`, broken, label,
        start + (x - start) * 0.62, y1 + (y2 - y1) * 0.62 + 4, "middle"));
    } else if (item.depth > 0 && label) {
      parts.push(svg("text", { class: "apart", x, y: item.y - 10, "text-anchor": "middle" }, label));
    }
  }
  parts.push(...items.map((item) => box(item, cluster)));
  return [parts, Math.max(...items.map((item) => item.y), first.y) + BOX.height + 4];
}

/** One below the other, indented; for narrow screens. */
function narrow(items, cluster) {
  const lacking = !items.some((item) => item.depth === 0);
  const parts = [clientsPill(cluster, 2, 2)];
  let y = PILL + 34;
  parts.push(arrow(`M${BOX.width / 2} ${PILL + 4}V${y - 3}`, !cluster.master, "", 0, 0, "start"));
  if (lacking) {
    parts.push(nobody(2, y));
    y += BOX.height + GAP.narrow;
  }
  const at = new Map();
  for (const item of items) {
    item.x = 2 + item.depth * INDENT;
    item.y = y;
    y += BOX.height + GAP.narrow;
    at.set(item.node, item);
    const label = lagWords(item);
    if (item.parent) {
      const from = at.get(item.parent);
      const trunk = from.x + INDENT / 2;
      const middle = item.y + BOX.height / 2;
      const broken = item.node.status !== "up" || item.node.link !== "up";
      parts.push(arrow(`M${trunk} ${from.y + BOX.height + 2}V${middle}H${item.x - 3}`, broken,
        label, item.x + 6, item.y - 9, "start"));
    } else if (item.depth > 0 && label) {
      parts.push(svg("text", { class: "apart", x: item.x + 6, y: item.y - 9 }, label));
    }
  }
  parts.push(...items.map((item) => box(item, cluster)));
  return [parts, y - GAP.narrow + 4];
}

/** The picture in words, for those who do not see it. */
function described(items, cluster) {
  const said = items.map(({ node, parent, depth }) => {
    if (node.role === "master") return `${node.node} is a master, ${node.status}.`;
    if (!parent) return `${node.node} is ${statusWords(node)}.`;
    return `${node.node} follows ${parent.node}: ${lagWords({ node, parent, depth })}.`;
  });
  return `Topology. ${cluster.master ? "" : "There is no master. "}${said.join(" ")}`;
}

/** Draw the group into `place`. */
export function showTopology(place, cluster) {
  let picture = place.firstElementChild;
  if (!picture) {
    picture = svg("svg", { role: "img" });
    place.append(picture);
  }
  const width = Math.max(250, place.clientWidth - 24);
  const items = arranged(cluster);
  const rows = new Map();
  for (const { depth } of items) rows.set(depth, (rows.get(depth) || 0) + 1);
  const most = Math.max(1, ...rows.values());
  const fits = most * (BOX.width + GAP.x) - GAP.x <= width;
  const [parts, height] = fits ? wide(items, cluster, width) : narrow(items, cluster);
  setAttribute(picture, "aria-label", described(items, cluster));
  setAttribute(picture, "viewBox", `0 0 ${width} ${height}`);
  setAttribute(picture, "width", String(width));
  setAttribute(picture, "height", String(height));
  picture.replaceChildren(head(), ...parts);
}
