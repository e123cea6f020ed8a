// Measures a folder natively, through bindfs and through us, in turns within one run, so that whatever else the machine
// does meets all alike. Prints medians and ratios; --json FILE keeps everything. Needs root, a build, and bindfs.
//   npm run bench:fs -- [--rounds 3] [--files 2000] [--folder /dev/shm] [--only regexp] [--sides regexp] [--json FILE] [--svg FILE]
//   npm run bench:fs -- --known 100000   descriptors, memory and idle processor time once so many files are known
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { cpus, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import koffi from 'koffi';
import { plot } from './net/plot.mjs';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    files: { type: 'string', default: '2000' },
    folder: { type: 'string', default: '/dev/shm' },
    only: { type: 'string', default: '.' },
    sides: { type: 'string', default: '.' },
    json: { type: 'string' },
    svg: { type: 'string' },
    known: { type: 'string' },
  },
});
const rounds = Number(flags.rounds);
const files = Number(flags.files);
const only = new RegExp(flags.only);
const sidesWanted = new RegExp(flags.sides);
/** Enough to make the servers' code fast, in the round that isn't counted. */
const WARM_FILES = 500;
const base = fs.mkdtempSync(join(flags.folder, 'drydock-bench-'));
const program = new URL('../../dist/daemon/bin.js', import.meta.url).pathname;

const drydock = (...options) => ({
  start: (source, target) =>
    spawn(process.execPath, [program, 'fs', 'mount', ...options, source, target], { stdio: 'pipe' }),
});
const bindfs = (...options) => ({
  start: (source, target) => spawn('bindfs', ['-f', ...options, source, target], { stdio: 'ignore' }),
});
const candidates = {
  native: undefined,
  bindfs: bindfs(),
  // By itself bindfs lets the kernel remember for a second. This is what it takes to see the host's changes at once.
  'bindfs, nothing kept': bindfs('-o', 'attr_timeout=0,entry_timeout=0'),
  consistent: drydock('--consistency', 'consistent'),
  cached: drydock('--consistency', 'cached'),
  'cached, data here': drydock('--consistency', 'cached', '--no-passthrough'),
};

/** Those that are compared. */
const names = Object.keys(candidates).filter((name) => sidesWanted.test(name));

/** The processor time of a process so far, in microseconds. */
function cpuUs(pid) {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

const library = koffi.load(null);
const c = {
  mmap: library.func('mmap', 'int64', ['int64', 'uint64', 'int', 'int', 'int', 'int64']),
  munmap: library.func('munmap', 'int', ['int64', 'uint64']),
  memchr: library.func('memchr', 'int64', ['int64', 'int', 'uint64']),
};

const sh = (script, cwd) =>
  execFileSync('sh', ['-ec', script], { cwd, stdio: ['ignore', 'ignore', 'ignore'] });
/** Files of the tree that the round at hand works on, and its archive. */
let treeFiles = 0;
const archive = () => join(base, `tree-${treeFiles}.tar`);
/** A program on the tree; an operation is one of its files. */
const tree = (script) => ({
  run: (folder) => {
    sh(typeof script === 'function' ? script() : script, folder);
    return treeFiles;
  },
});
const each = (count, run) => {
  for (let i = 0; i < count; i++) run(i);
  return count;
};
const MIB = 1 << 20;
const DATA = 64;
const DATA_TESTS = ['write MiB', 'read MiB', 'random 4k reads', 'random 4k writes', 'mapped MiB'];
const block = Buffer.alloc(MIB, 'x');

/** Each makes what it needs in `setup`, and `run` returns how many operations it did. In this order. */
const tests = {
  create: { run: (d) => each(1000, (i) => fs.closeSync(fs.openSync(join(d, `f${i}`), 'w'))) },
  'stat known': { run: (d) => each(3000, (i) => fs.statSync(join(d, `f${i % 1000}`))) },
  'stat missing': { run: (d) => each(2000, (i) => fs.existsSync(join(d, `missing${i}`))) },
  chmod: { run: (d) => each(2000, (i) => fs.chmodSync(join(d, `f${i % 1000}`), i & 1 ? 0o600 : 0o644)) },
  'open, close': { run: (d) => each(2000, (i) => fs.closeSync(fs.openSync(join(d, `f${i % 1000}`), 'r'))) },
  'list 1000 with attributes': {
    run: (d) => {
      let count = 0;
      for (let i = 0; i < 3; i++)
        for (const name of fs.readdirSync(d)) count += fs.lstatSync(join(d, name)) ? 1 : 0;
      return count;
    },
  },
  rename: { run: (d) => each(1000, (i) => fs.renameSync(join(d, `f${i}`), join(d, `g${i}`))) },
  'link, unlink': {
    run: (d) =>
      each(1000, (i) => {
        fs.linkSync(join(d, `g${i}`), join(d, 'link'));
        fs.unlinkSync(join(d, 'link'));
      }),
  },
  unlink: { run: (d) => each(1000, (i) => fs.unlinkSync(join(d, `g${i}`))) },
  'mkdir, rmdir': {
    run: (d) =>
      each(1000, () => {
        fs.mkdirSync(join(d, 'dir'));
        fs.rmdirSync(join(d, 'dir'));
      }),
  },
  'write 4k files': {
    run: (d) => each(500, (i) => fs.writeFileSync(join(d, `w${i}`), block.subarray(0, 4096))),
  },
  'read 4k files': { run: (d) => each(1000, (i) => fs.readFileSync(join(d, `w${i % 500}`))) },
  'list 10,000 names': {
    setup: (_d, host) => {
      fs.mkdirSync(join(host, 'many'));
      each(10_000, (i) => fs.closeSync(fs.openSync(join(host, 'many', `name${i}`), 'w')));
    },
    run: (d) => each(3, () => fs.readdirSync(join(d, 'many'))) * 10_000,
  },
  'write MiB': {
    run: (d) => {
      const fd = fs.openSync(join(d, 'data'), 'w');
      each(DATA, () => fs.writeSync(fd, block));
      fs.closeSync(fd);
      return DATA;
    },
  },
  'read MiB': {
    run: (d) => {
      const fd = fs.openSync(join(d, 'data'), 'r');
      each(DATA * 2, (i) => fs.readSync(fd, block, 0, MIB, (i % DATA) * MIB));
      fs.closeSync(fd);
      return DATA * 2;
    },
  },
  'random 4k reads': {
    run: (d) => {
      const fd = fs.openSync(join(d, 'data'), 'r');
      each(20_000, (i) => fs.readSync(fd, block, 0, 4096, ((i * 7919) % (DATA * 256)) * 4096));
      fs.closeSync(fd);
      return 20_000;
    },
  },
  'random 4k writes': {
    run: (d) => {
      const fd = fs.openSync(join(d, 'data'), 'r+');
      each(10_000, (i) => fs.writeSync(fd, block, 0, 4096, ((i * 7919) % (DATA * 256)) * 4096));
      fs.closeSync(fd);
      return 10_000;
    },
  },
  'mapped MiB': {
    run: (d) => {
      const fd = fs.openSync(join(d, 'data'), 'r');
      const address = c.mmap(0, DATA * MIB, 1 /* PROT_READ */, 1 /* MAP_SHARED */, fd, 0);
      // Every page is looked at, for what is searched isn't there.
      c.memchr(address, 'y'.charCodeAt(0), DATA * MIB);
      c.munmap(address, DATA * MIB);
      fs.closeSync(fd);
      return DATA;
    },
  },
  untar: tree(() => `tar xf '${archive()}'`),
  find: tree('find tree -type f | wc -l'),
  grep: tree('grep -r needle tree || true'),
  'git add': tree('cd tree && git init -q && git add .'),
  'git status': tree('cd tree && git status --porcelain'),
  'rm -rf': tree('rm -rf tree'),
};

function makeTree(count) {
  treeFiles = count;
  const tree = join(base, 'make', 'tree');
  each(count, (i) => {
    const folder = join(tree, `d${i % 40}`, `e${i % 7}`);
    if (i < 280) fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(join(folder, `file${i}.js`), `module.exports = ${i};\n`.repeat(1 + (i % 100)));
  });
  sh(`tar cf '${archive()}' tree`, join(base, 'make'));
  fs.rmSync(join(base, 'make'), { recursive: true });
}

async function start(name) {
  const host = join(base, name.replaceAll(/\W/g, '-'), 'host');
  fs.mkdirSync(host, { recursive: true });
  if (candidates[name] === undefined) return { name, host, guest: host };
  const guest = join(host, '..', 'guest');
  fs.mkdirSync(guest);
  const before = fs.statSync(guest).dev;
  const server = candidates[name].start(host, guest);
  for (let i = 0; fs.statSync(guest).dev === before; i++) {
    if (i > 200 || server.exitCode !== null) throw new Error(`${name} did not mount`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { name, host, guest, server };
}

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
const pad = (text, width) => String(text).padStart(width);

async function stop({ server, guest }) {
  if (server === undefined) return;
  execFileSync('umount', ['-l', guest]);
  if (server.exitCode === null) {
    server.kill('SIGTERM');
    await once(server, 'exit');
  }
}

/** Runs all tests on all sides in turns; results by test and side. */
async function compare() {
  const results = {};
  const sides = [];
  try {
    makeTree(WARM_FILES);
    makeTree(files);
    for (const name of names) sides.push(await start(name));
    // Round 0 warms everything up and isn't counted.
    for (let round = 0; round <= rounds; round++) {
      treeFiles = round === 0 ? WARM_FILES : files;
      for (const side of sides) {
        const work = (root) => join(root, 'work');
        fs.mkdirSync(work(side.host));
        for (const [test, { setup, run }] of Object.entries(tests)) {
          setup?.(work(side.guest), work(side.host));
          const cpu = side.server && cpuUs(side.server.pid);
          const at = process.hrtime.bigint();
          const count = run(work(side.guest));
          const us = Number(process.hrtime.bigint() - at) / 1000 / count;
          const cpuEach = side.server && (cpuUs(side.server.pid) - cpu) / count;
          if (round === 0 || !only.test(test)) continue;
          results[test] ??= {};
          results[test][side.name] ??= [];
          results[test][side.name].push({ us, cpu: cpuEach });
        }
        fs.rmSync(work(side.host), { recursive: true });
      }
    }
  } finally {
    for (const side of sides) await stop(side);
  }
  return results;
}

/** Whom a side is compared with: what is shown is as new as there. */
const peerOf = (name) => (name === 'consistent' ? 'bindfs, nothing kept' : 'bindfs');
const mean = (list) => Math.exp(list.reduce((sum, x) => sum + Math.log(x), 0) / list.length);

function report(results) {
  const time = (test, name) => median(results[test][name].map(({ us }) => us));
  const line = (title, cells) =>
    console.log(`${title.padEnd(24)}${cells.map((cell) => pad(cell, 24)).join('')}`);
  console.log(
    `Microseconds for an operation, median of ${rounds}, and how many times as fast as bindfs; CPU of the server.`,
  );
  console.log('Consistent is compared with the bindfs that keeps nothing either.');
  line('', names);
  for (const [test, by] of Object.entries(results))
    line(
      test,
      names.map((name) => {
        const us = time(test, name);
        const cpus = by[name].map(({ cpu }) => cpu);
        const cpu = cpus[0] === undefined ? '' : ` ${median(cpus).toFixed(0)}us`;
        const peer = peerOf(name);
        const ratio = names.includes(peer) ? ` (${(time(test, peer) / us).toFixed(2)}x)` : '';
        return `${us.toFixed(1)}${ratio}${cpu}`;
      }),
    );
  const total = (title, wanted, peer) => {
    const chosen = Object.keys(results).filter(wanted);
    if (chosen.length === 0) return;
    const ratio = (name) => mean(chosen.map((test) => time(test, peer(name)) / time(test, name)));
    line(
      title,
      names.map((name) => (names.includes(peer(name)) ? `${ratio(name).toFixed(2)}x` : '-')),
    );
  };
  const isData = (test) => DATA_TESTS.includes(test);
  console.log('Geometric means:');
  total('metadata and trees', (test) => !isData(test), peerOf);
  total(
    'the same to plain bindfs',
    (test) => !isData(test),
    () => 'bindfs',
  );
  total('data', isData, () => 'bindfs');
  total('data, to native', isData, () => 'native');
}

/** The results as bars. */
function picture(results) {
  const bars = Object.entries(results).map(([measure, by]) => {
    const peers = Object.entries(by).map(([name, list]) => {
      const times = list.map(({ us }) => us);
      return [name, { median: median(times), min: Math.min(...times), max: Math.max(...times) }];
    });
    return { measure, unit: 'us, less is better', peers: Object.fromEntries(peers) };
  });
  const machine = {
    cpus: cpus().length,
    model: cpus()[0].model,
    kernel: release(),
    node: process.versions.node,
  };
  return plot({ title: 'The bench of bind mounts', results: bars, machine });
}

/** What a server holds and does once the kernel knows `count` files of its mount, while the host is busy elsewhere. */
async function known(count) {
  const folders = Math.ceil(count / 1000);
  for (const name of ['consistent', 'cached']) {
    const side = await start(name);
    try {
      for (let i = 0; i < folders; i++) {
        fs.mkdirSync(join(side.host, `d${i}`));
        each(1000, (j) => fs.closeSync(fs.openSync(join(side.host, `d${i}`, `f${j}`), 'w')));
      }
      const { pid } = side.server;
      const at = process.hrtime.bigint();
      for (const folder of fs.readdirSync(side.guest))
        for (const file of fs.readdirSync(join(side.guest, folder)))
          fs.lstatSync(join(side.guest, folder, file));
      const walkS = Number(process.hrtime.bigint() - at) / 1e9;
      const descriptors = fs.readdirSync(`/proc/${pid}/fd`).length;
      const [, memory] = /^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
      const elsewhere = join(side.host, '..', 'elsewhere');
      fs.mkdirSync(elsewhere);
      // Let what the walk left behind settle first.
      await new Promise((resolve) => setTimeout(resolve, 2000));
      const before = cpuUs(pid);
      const endMs = Date.now() + 10_000;
      let changes = 0;
      while (Date.now() < endMs) fs.writeFileSync(join(elsewhere, `f${changes++ % 1000}`), 'x');
      const idle = ((cpuUs(pid) - before) / 10_000_000) * 100;
      console.log(
        `${name}: ${count} files walked in ${walkS.toFixed(1)} s; ${descriptors} descriptors, ${Math.round(memory / 1024)} MiB; ${idle.toFixed(2)} % of a processor while the host made ${changes} changes elsewhere in 10 s`,
      );
    } finally {
      await stop(side);
    }
  }
}

try {
  if (flags.known) await known(Number(flags.known));
  else {
    const results = await compare();
    report(results);
    if (flags.svg) fs.writeFileSync(flags.svg, picture(results));
    if (flags.json)
      fs.writeFileSync(
        flags.json,
        JSON.stringify({ rounds, files, folder: flags.folder, node: process.version, results }, undefined, 1),
      );
  }
} finally {
  fs.rmSync(base, { recursive: true, force: true });
}
