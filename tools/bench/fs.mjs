// Measures a folder natively, through bindfs and through us, in turns within one run, so that whatever else the machine
// does meets all alike. Prints medians and ratios; --json FILE keeps everything. Needs root, a build, and bindfs.
//   npm run bench:fs -- [--rounds 3] [--files 2000] [--folder /dev/shm] [--only regexp] [--json FILE]
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values: flags } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    files: { type: 'string', default: '2000' },
    folder: { type: 'string', default: '/dev/shm' },
    only: { type: 'string', default: '.' },
    json: { type: 'string' },
  },
});
const rounds = Number(flags.rounds);
const files = Number(flags.files);
const only = new RegExp(flags.only);
const base = fs.mkdtempSync(join(flags.folder, 'drydock-bench-'));
const program = new URL('../../dist/daemon/bin.js', import.meta.url).pathname;

const drydock = (...options) => ({
  start: (source, target) =>
    spawn(process.execPath, [program, 'fs', 'mount', ...options, source, target], { stdio: 'pipe' }),
});
const candidates = {
  native: undefined,
  bindfs: { start: (source, target) => spawn('bindfs', ['-f', source, target], { stdio: 'ignore' }) },
  consistent: drydock('--consistency', 'consistent'),
  cached: drydock('--consistency', 'cached'),
  'cached, data here': drydock('--consistency', 'cached', '--no-passthrough'),
};

/** The processor time of a process so far, in microseconds. */
function cpuUs(pid) {
  const fields = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
}

const sh = (script, cwd) =>
  execFileSync('sh', ['-ec', script], { cwd, stdio: ['ignore', 'ignore', 'ignore'] });
/** A program on the tree; an operation is one of its files. */
const tree = (script) => ({
  run: (folder) => {
    sh(script, folder);
    return files;
  },
});
const each = (count, run) => {
  for (let i = 0; i < count; i++) run(i);
  return count;
};
const MIB = 1 << 20;
const DATA = 32;
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
      each(5000, (i) => fs.readSync(fd, block, 0, 4096, ((i * 7919) % (DATA * 256)) * 4096));
      fs.closeSync(fd);
      return 5000;
    },
  },
  'random 4k writes': {
    run: (d) => {
      const fd = fs.openSync(join(d, 'data'), 'r+');
      each(2000, (i) => fs.writeSync(fd, block, 0, 4096, ((i * 7919) % (DATA * 256)) * 4096));
      fs.closeSync(fd);
      return 2000;
    },
  },
  untar: tree(`tar xf '${join(base, 'tree.tar')}'`),
  find: tree('find tree -type f | wc -l'),
  grep: tree('grep -r needle tree || true'),
  'git add': tree('cd tree && git init -q && git add .'),
  'git status': tree('cd tree && git status --porcelain'),
  'rm -rf': tree('rm -rf tree'),
};

function makeTree() {
  const tree = join(base, 'make', 'tree');
  each(files, (i) => {
    const folder = join(tree, `d${i % 40}`, `e${i % 7}`);
    if (i < 280) fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(join(folder, `file${i}.js`), `module.exports = ${i};\n`.repeat(1 + (i % 100)));
  });
  sh('tar cf ../tree.tar tree', join(base, 'make'));
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
const results = {};
const sides = [];
try {
  makeTree();
  for (const name of Object.keys(candidates)) sides.push(await start(name));
  // Round 0 warms everything up and isn't counted.
  for (let round = 0; round <= rounds; round++)
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
} finally {
  for (const { server, guest } of sides) {
    if (server === undefined) continue;
    execFileSync('umount', ['-l', guest]);
    if (server.exitCode === null) {
      server.kill('SIGTERM');
      await once(server, 'exit');
    }
  }
  fs.rmSync(base, { recursive: true, force: true });
}

const names = Object.keys(candidates);
const pad = (text, width) => String(text).padStart(width);
console.log(
  `microseconds per operation, median of ${rounds}; in brackets how many times as fast as bindfs; server CPU`,
);
console.log(`${' '.repeat(26)}${names.map((name) => pad(name, 26)).join('')}`);
const ratios = Object.fromEntries(names.map((name) => [name, []]));
for (const [test, by] of Object.entries(results)) {
  const bindfs = median(by.bindfs.map(({ us }) => us));
  const cells = names.map((name) => {
    const us = median(by[name].map((one) => one.us));
    const cpu =
      by[name][0].cpu === undefined ? '' : ` ${median(by[name].map((one) => one.cpu)).toFixed(0)}us`;
    ratios[name].push(bindfs / us);
    return pad(`${us.toFixed(1)} (${(bindfs / us).toFixed(2)}x)${cpu}`, 26);
  });
  console.log(`${test.padEnd(26)}${cells.join('')}`);
}
const mean = (list) => Math.exp(list.reduce((sum, x) => sum + Math.log(x), 0) / list.length);
console.log(
  `${'geometric mean'.padEnd(26)}${names.map((name) => pad(`${mean(ratios[name]).toFixed(2)}x`, 26)).join('')}`,
);
if (flags.json)
  fs.writeFileSync(
    flags.json,
    JSON.stringify({ rounds, files, folder: flags.folder, node: process.version, results }, undefined, 1),
  );
