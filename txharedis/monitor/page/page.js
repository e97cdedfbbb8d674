/* The status page: what the monitor tells, as it tells it. */

import { lostSentence, showBanner } from "./banner.js";
import { Charts } from "./charts.js";
import { byId, setText } from "./dom.js";
import { timeWithZone } from "./format.js";
import { mergeLines, showLog } from "./log.js";
import { mergeSamples } from "./series.js";
import { showHistory, showNodes } from "./tables.js";
import { showTopology } from "./topology.js";

const SILENCE = 5000; // milliseconds; the state comes at least once a second
const RETRY = 1000;

const told = { cluster: null, failovers: [], samples: [], period: 1, lines: [] };
let ahead = 0; // the monitor's clock less this one's, in seconds
let dialled = 0; // when the monitor was last dialled, as is
let heard = null; // when something was last heard, by this browser's clock, in milliseconds
let connected = false;
let source = null;
let retry = null;
let onlyWarnings = false;
const changed = new Set();

const charts = new Charts(byId("charts"));
const now = () => Date.now() / 1000 + ahead;

/** Draw what has changed, once for all that has come together. */
function show(part) {
  if (changed.size === 0) setTimeout(draw, 0);
  changed.add(part);
}

function draw() {
  const parts = new Set(changed);
  changed.clear();
  const { cluster, failovers, samples, period, lines } = told;
  if (cluster) {
    const [state, sentence] = showBanner(cluster, failovers, samples, now());
    const title = connected ? state : `no connection (${state})`;
    if (document.title !== `${title} - haredis`) document.title = `${title} - haredis`;
    announce(cluster, sentence);
    if (parts.has("cluster")) {
      showNodes(cluster);
      showTopology(byId("topology"), cluster);
      setText(byId("about"), `txharedis ${cluster.version}${
        cluster.group ? `, group ${cluster.group}` : ""}. Times are those of this browser's zone.`);
    }
  }
  if (parts.has("series")) charts.show(samples, period);
  if (parts.has("history")) showHistory(failovers, now());
  if (parts.has("log")) showLog(lines, onlyWarnings);
}

let announced = "";

/** Say the state to a screen reader, when it or the master has changed. */
function announce(cluster, sentence) {
  const key = `${cluster.state} ${cluster.master}`;
  if (key === announced) return;
  announced = key;
  setText(byId("announce"), sentence);
}

function connect() {
  clearTimeout(retry);
  source?.close();
  dialled = Date.now();
  source = new EventSource("events");
  const on = (name, take) => source.addEventListener(name, (event) => {
    take(JSON.parse(event.data));
    hear();
  });
  on("cluster", (cluster) => {
    told.cluster = cluster;
    ahead = cluster.at - Date.now() / 1000;
    show("cluster");
  });
  on("history", ({ failovers }) => {
    told.failovers = failovers;
    show("history");
  });
  on("series", ({ period, samples }) => {
    told.period = period;
    told.samples = mergeSamples(told.samples, samples);
    show("series");
  });
  on("sample", (sample) => {
    told.samples = mergeSamples(told.samples, [sample]);
    show("series");
  });
  on("log", ({ lines }) => {
    told.lines = mergeLines(told.lines, lines);
    show("log");
  });
  on("line", (line) => {
    told.lines = mergeLines(told.lines, [line]);
    show("log");
  });
  source.onerror = () => {
    lose();
    // The browser dials again by itself, but not after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) retry = setTimeout(connect, RETRY);
  };
}

function hear() {
  heard = Date.now();
  if (connected) return;
  connected = true;
  byId("lost").hidden = true;
  setText(byId("lost"), "");
  document.body.classList.remove("stale");
  byId("data").removeAttribute("aria-describedby");
  setText(byId("live"), "live");
  document.body.classList.add("connected");
}

function lose() {
  if (!connected && !byId("lost").hidden) return;
  connected = false;
  setText(byId("lost"), lostSentence(heard === null ? null : heard / 1000));
  byId("lost").hidden = false;
  document.body.classList.remove("connected");
  if (heard !== null) document.body.classList.add("stale");
  byId("data").setAttribute("aria-describedby", "lost");
  setText(byId("live"), heard === null ? "not connected"
    : `as of ${timeWithZone(heard / 1000)}`);
  if (told.cluster) show("connection");
  else document.title = "no connection - haredis";
}

/** A link can die without a word: a phone that slept, a network that is gone. */
function look() {
  if (Date.now() - Math.max(heard ?? 0, dialled) > SILENCE) {
    lose();
    connect();
  }
}

byId("only-warnings").addEventListener("click", (event) => {
  onlyWarnings = !onlyWarnings;
  event.currentTarget.setAttribute("aria-pressed", String(onlyWarnings));
  show("log");
});
new ResizeObserver(() => show("cluster")).observe(byId("topology"));
document.addEventListener("visibilitychange", look);
setInterval(look, 1000);
connect();
