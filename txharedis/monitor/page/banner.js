/* The state of the group: the first thing that is to be seen. */

import { byId, html, keyed, setAttribute, setText, svg } from "./dom.js";
import { age, duration, exactTime, timeWithZone, when, whole, UNKNOWN } from "./format.js";

export const STATES = {
  healthy: { word: "Healthy", name: "healthy" },
  degraded: { word: "Degraded", name: "degraded" },
  "no master": { word: "No master", name: "no-master" },
};

/* Each state has a shape of its own: a circle with a tick, a triangle, an octagon with a cross. */
const SHAPES = {
  healthy: ["M24 4a20 20 0 1 0 0 40a20 20 0 1 0 0-40z", "M14 25l7 7l13-15"],
  degraded: ["M24 5L45 42H3z", "M24 18v11M24 34.5v1"],
  "no-master": ["M16 4h16l12 12v16l-12 12H16L4 32V16z", "M16 16l16 16M32 16L16 32"],
  unknown: ["M24 4a20 20 0 1 0 0 40a20 20 0 1 0 0-40z", "M17 24h1M24 24h1M31 24h1"],
};
const ICON_COLOURS = {
  healthy: "%231a7f4b", degraded: "%23b87800", "no-master": "%23c62828", unknown: "%23708090",
};

function drawSign(name, label) {
  const sign = byId("sign");
  setAttribute(sign, "aria-label", label);
  if (sign.dataset.shape === name) return;
  sign.dataset.shape = name;
  const [outline, mark] = SHAPES[name];
  sign.replaceChildren(
    svg("path", { class: "outline", d: outline }), svg("path", { class: "mark", d: mark }),
  );
  byId("icon").href =
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 48 48'%3E" +
    `%3Cpath fill='${ICON_COLOURS[name]}' d='${outline}'/%3E` +
    "%3Cpath fill='none' stroke='white' stroke-width='5' stroke-linecap='round' " +
    `d='${mark}'/%3E%3C/svg%3E`;
}

/**
 * Since when the present master is it: {at, exact}, or null.
 * The history tells it; else the samples, and then it may have been so for longer.
 */
export function masterSince(cluster, failovers, samples) {
  const newest = failovers[0];
  if (newest && newest.new === cluster.master) return { at: newest.at, exact: true };
  // Samples without a master do not count: a monitor that has just begun knows of none.
  const other = samples.findLastIndex(({ master }) => master && master !== cluster.master);
  const first = samples.slice(other + 1).find(({ master }) => master === cluster.master);
  return first ? { at: first.at, exact: other >= 0 } : null;
}

function withoutSince(samples) {
  const last = samples.findLastIndex(({ master }) => master);
  const first = samples[last + 1];
  return first ? { at: first.at, exact: last >= 0 } : null;
}

function lastMaster(samples, failovers) {
  return samples.findLast(({ master }) => master)?.master ?? failovers[0]?.new ?? null;
}

function sinceWords(since, now) {
  if (!since) return "";
  const ago = age(now - since.at);
  return ` ${since.exact ? "since" : "at least since"} ${when(since.at, now)} (${ago})`;
}

function masterSentence(cluster, failovers, samples, now) {
  if (cluster.master && cluster.state !== "no master") {
    const since = masterSince(cluster, failovers, samples);
    return { node: cluster.master, rest: ` is the master${sinceWords(since, now)}.`, since };
  }
  const since = withoutSince(samples);
  const last = cluster.master || lastMaster(samples, failovers);
  const tail = last ? ` The last one was ${last}.` : "";
  return { node: "", rest: `Nobody is the master${sinceWords(since, now)}.${tail}`, since };
}

function failoverSentence(failover, now) {
  const reason = failover.reason ? `: ${failover.reason}` : "";
  const step = failover.step ? `; step: ${failover.step}` : "";
  const ago = duration(Math.max(0, now - failover.since));
  return `This monitor is failing over, for ${ago} now${reason}${step}.`;
}

function facts(cluster) {
  const reached = cluster.quorum_ok ? "reached" : "NOT reached";
  return [
    ["Epoch", cluster.epoch === null ? UNKNOWN : whole(cluster.epoch)],
    ["Quorum", `${cluster.quorum} of ${cluster.nodes.length}, ${reached}`],
    ["Clients", cluster.clients === null ? "not known" : whole(cluster.clients)],
    ["Phase", cluster.phase],
    ["This monitor", cluster.elects ? "takes part in failovers" : "only watches"],
  ];
}

/** Show the state; return [the words for the tab's title, what to announce]. */
export function showBanner(cluster, failovers, samples, now) {
  const state = STATES[cluster.state] || { word: cluster.state, name: "unknown" };
  const banner = byId("banner");
  setAttribute(banner, "class", `banner ${state.name}`);
  drawSign(state.name, `state: ${cluster.state}`);
  setText(byId("state"), state.word);

  const sentence = masterSentence(cluster, failovers, samples, now);
  const line = byId("master");
  if (line.textContent !== sentence.node + sentence.rest) {
    line.replaceChildren(html("strong", {}, sentence.node), sentence.rest);
  }
  setAttribute(line, "title", sentence.since ? exactTime(sentence.since.at) : null);

  const failover = byId("failover");
  failover.hidden = !cluster.failover;
  if (cluster.failover) {
    setText(failover, failoverSentence(cluster.failover, now));
    setAttribute(failover, "title", exactTime(cluster.failover.since));
  }

  const why = byId("why");
  why.hidden = cluster.why.length === 0;
  keyed(why, cluster.why.map((text, i) => ({ text, i })), ({ i }) => String(i),
    () => html("li"), (li, { text }) => setText(li, text));

  keyed(byId("facts"), facts(cluster), ([name]) => name,
    ([name]) => html("div", {}, html("dt", {}, name), html("dd")),
    (div, [, value]) => setText(div.lastElementChild, value));

  const master = cluster.master && cluster.state !== "no master"
    ? `${cluster.master} is the master.` : "There is no master.";
  return [cluster.state, `The group is: ${cluster.state}. ${master} ${cluster.why.join(" ")}`];
}

/** What the banner's line of lost connections says. */
export function lostSentence(at) {
  return at === null
    ? "No connection to the monitor yet; trying again."
    : `No connection to the monitor since ${timeWithZone(at)}; what you see is old.`;
}
