// The image bench: our daemon beside Debian's dockerd, in one run, interleaved, both driven by the same docker CLI.
//
//   npm run bench:image                             1 GiB in ten layers and 200 MiB in one, 3 rounds, table
//   npm run bench:image -- --mib 10 --single 20     smaller ones, for a quick look
//   npm run bench:image -- --rounds 5 --only push --json
//
// Needs root, dockerd and docker-registry (for push and pull). The daemons and the registry share a network namespace of
// their own. What is reported is the median with the lowest and highest, ours divided by dockerd's, and the highest
// resident memory of each daemon during the measure.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { parseArgs } from 'node:util';
import { Bench, median, startDaemon } from './daemons.mjs';
import { archive } from './image/archive.mjs';
import { measures } from './image/measures.mjs';

const INSIDE = 'DRYDOCK_BENCH_NETWORK';
const REGISTRY_PORT = 5987;

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    mib: { type: 'string', default: '102' },
    single: { type: 'string', default: '200' },
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
  },
});
if (process.getuid() !== 0) {
  console.error('bench:image starts two daemons: run it as root.');
  process.exit(1);
}
if (process.env[INSIDE] === undefined) {
  const { status } = spawnSync('unshare', ['--net', process.execPath, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1' },
  });
  process.exit(status ?? 1);
}
execFileSync('ip', ['link', 'set', 'lo', 'up']);
const bench = new Bench();

const peakMib = ({ pid }) =>
  Math.round(Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024);

/** Lets the peak begin anew (proc(5), clear_refs). */
const forgetPeak = ({ pid }) => writeFileSync(`/proc/${pid}/clear_refs`, '5');

let registries = 0;

/** Starts a registry that has nothing, and gives its address. */
function registry() {
  const address = `127.0.0.1:${REGISTRY_PORT + registries}`;
  const file = bench.at(`registry${registries}.yml`);
  const config = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: bench.at(`registry${registries++}`) } },
    http: { addr: address },
  };
  writeFileSync(file, JSON.stringify(config));
  bench.start('docker-registry', ['serve', file]);
  execFileSync('sh', ['-c', `until curl -s http://${address}/v2/ >/dev/null; do sleep 0.05; done`]);
  return address;
}

const summarise = (samples) => ({
  median: Math.round(median(samples)),
  min: Math.round(Math.min(...samples)),
  max: Math.round(Math.max(...samples)),
});

function row({ measure, drydock, dockerd, ratio, mibPerS, peakMib: peak }) {
  const cell = ({ median: middle, min, max }) => `${middle} [${min}-${max}]`.padEnd(24);
  const speed = mibPerS ? `${mibPerS.drydock} / ${mibPerS.dockerd}` : '';
  return `${measure.padEnd(26)}${cell(drydock)}${cell(dockerd)}x ${String(ratio).padEnd(6)}${speed.padEnd(14)}${peak.drydock} / ${peak.dockerd}`;
}

function run({ name, mib, prepare, work, finish }, peers) {
  const times = { drydock: [], dockerd: [] };
  const peak = { drydock: 0, dockerd: 0 };
  for (let round = 0; round < Number(options.rounds); round++)
    for (const peer of peers) {
      prepare?.(peer);
      forgetPeak(peer);
      const startedMs = performance.now();
      work(peer);
      times[peer.name].push(performance.now() - startedMs);
      peak[peer.name] = Math.max(peak[peer.name], peakMib(peer));
      finish?.(peer);
    }
  const [drydock, dockerd] = [summarise(times.drydock), summarise(times.dockerd)];
  const speed = ({ median: ms }) => Math.round(mib / (ms / 1000));
  return {
    measure: name,
    unit: 'ms',
    drydock,
    dockerd,
    ratio: Number((drydock.median / dockerd.median).toFixed(2)),
    ...(mib && { mibPerS: { drydock: speed(drydock), dockerd: speed(dockerd) } }),
    peakMib: peak,
  };
}

async function main() {
  const ours = await startDaemon(bench, 'drydock');
  const theirs = await startDaemon(bench, 'dockerd', 'dockerd', { ownNetwork: false });
  const peers = [ours, theirs];
  const sizes = { mib: Number(options.mib), single: Number(options.single) };
  const archives = { big: bench.at('big.tar'), single: bench.at('single.tar') };
  archive(bench, archives.big, { name: 'big', layers: 10, mib: sizes.mib });
  archive(bench, archives.single, { name: 'single', layers: 1, mib: sizes.single });
  ours.docker('save', '-o', bench.at('host.tar'), 'drydock/host');
  theirs.docker('load', '-q', '-i', bench.at('host.tar'));
  const results = [];
  const hasRegistry = existsSync('/usr/bin/docker-registry');
  for (const measure of measures(bench, archives, sizes, hasRegistry ? registry : undefined)) {
    if (!measure.name.includes(options.only)) continue;
    const result = run(measure, peers);
    results.push(result);
    if (!options.json) console.log(row(result));
  }
  const machine = { cpu: cpus()[0]?.model, cpus: cpus().length, kernel: release(), node: process.version };
  if (options.json) console.log(JSON.stringify({ machine, load: loadavg()[0], results }));
  else console.log(`load ${loadavg()[0].toFixed(1)}`);
}

try {
  if (!options.json)
    console.log(
      `${'ms'.padEnd(26)}${'drydock'.padEnd(24)}${'dockerd'.padEnd(24)}${'ratio'.padEnd(8)}${'MiB/s'.padEnd(14)}peak MiB`,
    );
  await main();
} finally {
  await bench.close();
}
