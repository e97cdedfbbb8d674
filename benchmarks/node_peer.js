// A contestant in Node: node_peer.js MODULES ioredis|haredis PORT ...
//
// Orders and answers are lines of JSON, see processes.py:
//   {"do": "round", "command", "in_flight", "size", "seconds"}  -> count, elapsed, cpu, latencies
//   {"do": "write"}   write every few milliseconds from here on
//   {"do": "killed"}  -> answered when a write that was given after this is acknowledged
//   {"do": "rest"}    write no more
'use strict';
const path = require('path');
const [modules, name, ...ports] = process.argv.slice(2);
const EVERY = 2; // milliseconds between two writes

function ioredis() {
  const loaded = require(path.join(modules, 'ioredis'));
  const redis = new (loaded.default || loaded)({ port: Number(ports[0]), enableAutoPipelining: true });
  redis.on('error', () => {});
  return {
    set: (key, value) => redis.set(key, value),
    get: (key) => redis.get(key),
    getBytes: (key) => redis.getBuffer(key),
    lrange: (key) => redis.lrange(key, 0, -1),
  };
}

function haredis() {
  const nodes = ports.map((port) => `127.0.0.1:${port}`);
  const client = require(path.join(modules, 'haredis')).createClient(nodes, {});
  client.on('error', () => {});
  const ask = (method) => (...words) =>
    new Promise((resolve, reject) => {
      client[method](...words, (error, reply) => (error ? reject(error) : resolve(reply)));
    });
  return { set: ask('set'), get: ask('get'), getBytes: ask('get'), lrange: (key) => ask('lrange')(key, 0, -1) };
}

const client = name === 'ioredis' ? ioredis() : haredis();
const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9;

async function round(order) {
  // Short values are texts, its default and its fastest; long ones are bytes.
  const long = order.size >= 1024;
  const value = long ? Buffer.alloc(order.size, 'v') : 'v'.repeat(order.size);
  const get = long ? client.getBytes : client.get;
  const submit = { set: (key) => client.set(key, value), get, lrange: client.lrange }[order.command];
  const latencies = [];
  let count = 0;
  let stopping = false;
  async function chain(key) {
    while (!stopping) {
      const sent = process.hrtime.bigint();
      await submit(key);
      count += 1;
      if (order.in_flight === 1) latencies.push(seconds(sent));
    }
  }
  const used = process.cpuUsage();
  const began = process.hrtime.bigint();
  setTimeout(() => { stopping = true; }, order.seconds * 1000);
  await Promise.all(order.keys.map(chain));
  const cpu = process.cpuUsage(used);
  latencies.sort((a, b) => a - b);
  const at = (part) => latencies[Math.max(0, Math.ceil(part * latencies.length) - 1)];
  return {
    count,
    elapsed: seconds(began),
    cpu: (cpu.user + cpu.system) / 1e6,
    p50: latencies.length ? at(0.5) : null,
    p99: latencies.length ? at(0.99) : null,
  };
}

let writing = null;
let written = 0;
let killed = null; // {at, answer} until a write after it is acknowledged

function write() {
  const given = process.hrtime.bigint();
  written += 1;
  client.set('written', String(written)).then(() => {
    if (killed !== null && given >= killed.at) {
      const { at, answer } = killed;
      killed = null;
      answer({ outage: seconds(at) });
    }
  }, () => {});
}

async function obey(order) {
  switch (order.do) {
    case 'round':
      return round(order);
    case 'write':
      await client.set('written', '0');
      writing = writing || setInterval(write, EVERY);
      return {};
    case 'killed':
      return new Promise((answer) => { killed = { at: process.hrtime.bigint(), answer }; });
    case 'rest':
      clearInterval(writing);
      writing = null;
      return {};
    default:
      throw new Error(`unknown order ${order.do}`);
  }
}

require('readline').createInterface({ input: process.stdin })
  .on('line', (line) => {
    obey(JSON.parse(line))
      .catch((error) => ({ error: String(error) }))
      .then((answer) => process.stdout.write(`${JSON.stringify(answer)}\n`));
  })
  .on('close', () => process.exit(0));
