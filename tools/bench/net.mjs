// The network bench: we beside pasta, slirp4netns, docker-proxy and the kernel's own wires, in one run, interleaved.
//
//   npm run bench:net                      everything, 3 rounds, table
//   npm run bench:net -- --json            one JSON document and nothing else
//   npm run bench:net -- --only 'TCP up' --rounds 5 --seconds 3 --peers drydock,pasta
//   npm run bench:net -- --peers drydock,drydock-epoll      io_uring beside one system call each
//   npm run bench:net -- --svg docs/network-bench.svg
//   npm run bench:net -- --profile FOLDER  a CPU profile of our network's thread for each measure, and what is hottest in it
//   npm run bench:net -- --against COMMIT  this tree against another commit of it
//
// Rounds go over all peers for one measure before the next, so that what else the machine does meets all alike. What is
// reported is the median, with the lowest and highest.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { measures } from './net/measures.mjs';
import { peers, withPeer } from './net/peers.mjs';
import { plot } from './net/plot.mjs';
import { hottest } from './net/profile.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    peers: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '2' },
    svg: { type: 'string' },
    profile: { type: 'string' },
    against: { type: 'string' },
  },
});
if (process.getuid() !== 0) {
  console.error('bench:net makes network namespaces: run it as root.');
  process.exit(1);
}

/** Another commit, built in a folder of its own. */
function buildCommit(commit) {
  const folder = mkdtempSync(join(tmpdir(), 'drydock-bench-'));
  const tree = join(folder, 'tree');
  const git = (...args) => execFileSync('git', args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] });
  git('worktree', 'add', '--detach', tree, commit);
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
  execFileSync(process.execPath, ['tools/build.mjs'], { cwd: tree, stdio: ['ignore', 'ignore', 'inherit'] });
  return {
    tree,
    remove() {
      git('worktree', 'remove', '--force', tree);
      rmSync(folder, { recursive: true });
    },
  };
}

// Peers run in namespaces of their own and must be taken down: a stop waits for the measure under way.
let stopped = false;
for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, () => {
    stopped = true;
  });

const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** Median, lowest and highest of each number of several samples. */
function summarise(samples) {
  const { length } = samples;
  if (length === 0) return undefined;
  const values = samples.map(({ value }) => value);
  const of = (key) =>
    samples[0][key] === undefined ? undefined : median(samples.map((sample) => sample[key]));
  return {
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    samples: length,
    cpuPerGb: of('cpuPerGb'),
    cpuUs: of('cpuUs'),
    p50Us: of('p50Us'),
    p99Us: of('p99Us'),
    descriptors: of('descriptors'),
  };
}

/** Published ports are measured of those who publish, a machine's wire beside what carries plain frames too. */
function fits(measure, peer) {
  if (measure.vm) return peer.vm || peer.likeVm;
  if (peer.vm) return false;
  return measure.published ? peer.publishes : !peer.onlyPublishes;
}

/** Functions that are told of a profile. */
const HOTTEST = 12;

/** Where the profile of a measure's last round goes; undefined when none is wanted. */
function profileOf({ name }) {
  if (options.profile === undefined) return undefined;
  mkdirSync(options.profile, { recursive: true });
  return resolve(options.profile, `${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-')}.cpuprofile`);
}

/** One name may stand for two kinds of wire. */
const namesOf = (contenders) => [...new Set(contenders.map(({ name }) => name))];

async function run(contenders, chosen) {
  const results = [];
  const names = namesOf(contenders);
  for (const measure of chosen) {
    const samples = new Map(names.map((name) => [name, []]));
    const profile = profileOf(measure);
    for (let round = 0; round < Number(options.rounds); round++) {
      for (const peer of contenders) {
        if (stopped) return results;
        if (!fits(measure, peer)) continue;
        try {
          await withPeer(peer, measure.mtu, measure.published, profile, async (running) => {
            if (measure.only && !measure.only(running)) return;
            samples.get(peer.name).push(await measure.run(running, Number(options.seconds)));
          });
        } catch (error) {
          console.error(`${measure.name}, ${peer.name}: ${error.message}`);
        }
      }
    }
    const byPeer = Object.fromEntries([...samples].map(([name, list]) => [name, summarise(list)]));
    const hot = profile && existsSync(profile) && hottest(JSON.parse(readFileSync(profile, 'utf8')), HOTTEST);
    results.push({ measure: measure.name, unit: measure.unit, peers: byPeer, ...(hot && { hot }) });
    if (options.json) continue;
    console.log(row(results.at(-1), names));
    for (const { name, share } of hot || []) console.log(`${(100 * share).toFixed(1).padStart(8)} % ${name}`);
  }
  return results;
}

const number = (value) =>
  Math.abs(value) >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(2);

function row({ measure, unit, peers: byPeer }, names) {
  const cells = names.map((name) => {
    const found = byPeer[name];
    if (!found) return '-';
    const extra = found.cpuPerGb !== undefined ? ` ${found.cpuPerGb.toFixed(2)}s/GB` : '';
    const each = found.cpuUs !== undefined ? ` ${found.cpuUs.toFixed(1)}us CPU` : '';
    const tail = found.p99Us !== undefined ? ` ${Math.round(found.p50Us)}/${Math.round(found.p99Us)}us` : '';
    const left = found.descriptors !== undefined ? ` ${found.descriptors} descriptors` : '';
    return `${number(found.median)} [${number(found.min)}-${number(found.max)}]${extra}${each}${tail}${left}`;
  });
  return `${`${measure} (${unit})`.padEnd(40)}${cells.map((cell) => cell.padEnd(36)).join('')}`;
}

const other = options.against && buildCommit(options.against);
try {
  const wanted = options.peers?.split(',');
  const contenders = peers(root, other?.tree).filter(
    (peer) => peer.available() && (wanted ? wanted.includes(peer.name) : !peer.onDemand),
  );
  const chosen = measures.filter(({ name }) => name.includes(options.only));
  if (!options.json)
    console.log(
      `${''.padEnd(40)}${namesOf(contenders)
        .map((name) => name.padEnd(36))
        .join('')}`,
    );
  const results = await run(contenders, chosen);
  const document = {
    machine: {
      cpus: cpus().length,
      model: cpus()[0].model,
      kernel: release(),
      node: process.version,
      load: loadavg()[0],
    },
    rounds: Number(options.rounds),
    seconds: Number(options.seconds),
    results,
  };
  if (options.json) console.log(JSON.stringify(document, undefined, 1));
  if (options.svg) writeFileSync(options.svg, plot(document));
} finally {
  other?.remove();
}
