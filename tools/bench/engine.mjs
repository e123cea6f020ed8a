// The engine bench: our daemon beside Debian's dockerd, in one run, interleaved, over the Engine API.
//
//   npm run bench:engine                          everything, table
//   npm run bench:engine -- --json                one JSON document and nothing else
//   npm run bench:engine -- --rounds 10 --only exec
//
// Needs root, dockerd and the docker CLI. What is reported is the median with the lowest and highest, and ours divided
// by dockerd's. Memory is the proportional set size (Pss) of all processes that an engine keeps: the daemon, and
// containerd and its shims or our waiting launcher; what runs in the containers is not counted.
import { cpus, loadavg, release } from 'node:os';
import { parseArgs } from 'node:util';
import { Bench, median, startDaemon } from './daemons.mjs';
import { Api } from './engine/api.mjs';
import { prepare } from './engine/image.mjs';
import { measures } from './engine/measures.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    only: { type: 'string', default: '' },
  },
});
if (process.getuid() !== 0) {
  console.error('bench:engine starts two daemons: run it as root.');
  process.exit(1);
}
const bench = new Bench();

function summarise(samples) {
  return {
    median: median(samples),
    min: Math.min(...samples),
    max: Math.max(...samples),
    samples: samples.length,
  };
}

const number = (value) => (value >= 100 ? String(Math.round(value)) : value.toFixed(1));
const cell = ({ median: middle, min, max }) => `${number(middle)} [${number(min)}-${number(max)}]`;

function row({ measure, unit, drydock, dockerd, ratio, target }) {
  const verdict = target === undefined ? '' : ` (at most ${target})`;
  return `${`${measure} (${unit})`.padEnd(38)}${cell(drydock).padEnd(26)}${cell(dockerd).padEnd(26)}x ${ratio}${verdict}`;
}

/** Runs one measure, which may give several figures, round by round over both engines. */
async function run(measure, peers) {
  const samples = new Map();
  const rounds = measure.once ? 1 : Number(options.rounds ?? measure.rounds);
  for (const peer of peers) await measure.before?.(peer, bench);
  // The first round warms up both.
  for (let round = measure.once ? 0 : -1; round < rounds; round++)
    for (const peer of peers)
      for (const [name, value] of Object.entries(await measure.run(peer, bench, round))) {
        if (round < 0) continue;
        if (!samples.has(name)) samples.set(name, { drydock: [], dockerd: [] });
        samples.get(name)[peer.name].push(value);
      }
  for (const peer of peers) await measure.after?.(peer, bench);
  return [...samples].map(([name, found]) => {
    const [drydock, dockerd] = [summarise(found.drydock), summarise(found.dockerd)];
    const ratio = Number((drydock.median / dockerd.median).toFixed(2));
    return { measure: name, unit: measure.unit, drydock, dockerd, ratio, target: measure.targets?.[name] };
  });
}

async function main() {
  const peers = [];
  for (const kind of ['drydock', 'dockerd']) {
    const peer = await startDaemon(bench, kind);
    peers.push({ ...peer, api: new Api(peer.socket) });
  }
  prepare(peers, bench);
  const results = [];
  for (const measure of measures) {
    if (!measure.name.includes(options.only)) continue;
    for (const result of await run(measure, peers)) {
      results.push(result);
      if (!options.json) console.log(row(result));
    }
  }
  for (const { api } of peers) api.close();
  const machine = { cpu: cpus()[0]?.model, cpus: cpus().length, kernel: release(), node: process.version };
  if (options.json) console.log(JSON.stringify({ machine, load: loadavg()[0], results }));
  else console.log(`load ${loadavg()[0].toFixed(1)}`);
}

try {
  if (!options.json) console.log(`${''.padEnd(38)}${'drydock'.padEnd(26)}dockerd`);
  await main();
} finally {
  await bench.close();
}
