// The image bench: our daemon beside Debian's dockerd, in one run, interleaved, both driven by the same docker CLI.
//
//   npm run bench:image                     ten layers of 100 MiB and one of 200, 3 rounds, table
//   npm run bench:image -- --mib 20         ten layers of 20 MiB, for a quick look
//   npm run bench:image -- --rounds 5 --json
//
// Needs root, dockerd and docker-registry (for push and pull). What is reported is the median, ours divided by
// dockerd's, and the highest resident memory of each daemon.
import { execFileSync } from 'node:child_process';
import { randomFillSync } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Bench, median, startDaemon } from './daemons.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    mib: { type: 'string', default: '100' },
    rounds: { type: 'string', default: '3' },
  },
});
if (process.getuid() !== 0) {
  console.error('bench:image starts two daemons: run it as root.');
  process.exit(1);
}
const bench = new Bench();
const { folder } = bench;

/** A docker archive of layers of random bytes, which compress as badly as most layers' contents do in part. */
function archive(path, layers, mib) {
  const tree = join(folder, 'tree');
  mkdirSync(tree);
  const bytes = Buffer.alloc(mib << 20);
  const names = [];
  for (let i = 0; i < layers; i++) {
    randomFillSync(bytes.subarray(0, bytes.length / 2));
    const layer = join(tree, `layer${i}`);
    mkdirSync(layer);
    const files = 50;
    const size = Math.floor(bytes.length / files);
    for (let f = 0; f < files; f++)
      writeFileSync(join(layer, `f${i}-${f}`), bytes.subarray(f * size, (f + 1) * size));
    execFileSync('tar', ['-C', layer, '-cf', join(tree, `${i}.tar`), '.']);
    rmSync(layer, { recursive: true });
    names.push(`${i}.tar`);
  }
  const digest = (name) =>
    `sha256:${execFileSync('sha256sum', [join(tree, name)])
      .toString()
      .slice(0, 64)}`;
  const config = {
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: {},
    rootfs: { type: 'layers', diff_ids: names.map(digest) },
  };
  writeFileSync(join(tree, 'config.json'), JSON.stringify(config));
  writeFileSync(
    join(tree, 'manifest.json'),
    JSON.stringify([{ Config: 'config.json', RepoTags: ['bench:latest'], Layers: names }]),
  );
  execFileSync('tar', ['-C', tree, '-cf', path, 'config.json', 'manifest.json', ...names]);
  rmSync(tree, { recursive: true });
}

function buildContext(lines) {
  const context = mkdtempSync(join(folder, 'context-'));
  for (let i = 0; i < 200; i++) writeFileSync(join(context, `file${i}`), `content ${i}\n`.repeat(100));
  writeFileSync(join(context, 'Dockerfile'), `FROM drydock/host\n${lines.join('\n')}\n`);
  return context;
}

const steps = Array.from({ length: 10 }, (_, i) =>
  i % 2 ? `RUN echo ${i} > /f${i}` : `COPY file${i}* /d${i}/`,
);

/** Each measure: prepare (not timed), run (timed). */
function measures(big, single, registry) {
  const load = (path) => ({
    prepare: ({ docker }) => tryTo(() => docker('rmi', '-f', 'bench')),
    run: ({ docker }) => docker('load', '-q', '-i', path),
  });
  const context = buildContext(steps);
  const deep = buildContext(Array.from({ length: 19 }, (_, i) => `COPY file${i} /deep${i}`));
  return {
    [`load 10 x ${options.mib} MiB`]: load(big),
    [`save 10 x ${options.mib} MiB`]: {
      run: ({ docker, name }) => docker('save', '-o', join(folder, `${name}.tar`), 'bench'),
    },
    ...(registry && {
      [`push 10 x ${options.mib} MiB`]: {
        // A repository of its own for each round: nothing is there already.
        prepare: (peer) => {
          peer.target = `${registry}/${peer.name}/${Date.now()}`;
          peer.docker('tag', 'bench', peer.target);
        },
        run: (peer) => peer.docker('push', '-q', peer.target),
      },
      [`pull 10 x ${options.mib} MiB`]: {
        prepare: (peer) => {
          tryTo(() => peer.docker('rmi', '-f', 'bench'));
          tryTo(() => peer.docker('rmi', '-f', peer.target));
        },
        run: (peer) => peer.docker('pull', '-q', peer.target),
      },
    }),
    'load 200 MiB in one': load(single),
    'build 10 steps': {
      run: ({ docker }) => docker('build', '-q', '--no-cache', '--network=none', '-t', 'built', context),
    },
    'build 10 steps, cached': {
      run: ({ docker }) => docker('build', '-q', '--network=none', '-t', 'built', context),
    },
    commit: {
      prepare: ({ docker }) => {
        tryTo(() => docker('rm', '-f', 'committed'));
        docker(
          'run',
          '--network=none',
          '--name',
          'committed',
          'drydock/host',
          'sh',
          '-c',
          'head -c 20000000 /dev/urandom > /f',
        );
      },
      run: ({ docker }) => docker('commit', 'committed'),
    },
    'run on 20 layers': {
      prepare: ({ docker }) => docker('build', '-q', '-t', 'deep', deep),
      run: ({ docker }) => docker('run', '--rm', '--network=none', 'deep', 'true'),
    },
  };
}

function tryTo(work) {
  try {
    work();
  } catch {
    // not there yet
  }
}

const peakMib = (pid) =>
  Math.round(Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024);

async function main() {
  const at = (name) => bench.at(name);
  const ours = await startDaemon(bench, 'drydock');
  const theirs = await startDaemon(bench, 'dockerd');
  let registry;
  if (existsSync('/usr/bin/docker-registry')) {
    registry = '127.0.0.1:5987';
    writeFileSync(
      at('registry.yml'),
      JSON.stringify({
        version: '0.1',
        log: { level: 'error', accesslog: { disabled: true } },
        storage: { filesystem: { rootdirectory: at('registry') } },
        http: { addr: registry },
      }),
    );
    bench.start('docker-registry', ['serve', at('registry.yml')]);
  }
  archive(at('big.tar'), 10, Number(options.mib));
  archive(at('single.tar'), 1, 200);
  ours.docker('save', '-o', at('host.tar'), 'drydock/host');
  theirs.docker('load', '-q', '-i', at('host.tar'));
  const rows = [];
  for (const [name, { prepare, run }] of Object.entries(
    measures(at('big.tar'), at('single.tar'), registry),
  )) {
    const times = { drydock: [], dockerd: [] };
    for (let round = 0; round < Number(options.rounds); round++)
      for (const peer of [ours, theirs]) {
        prepare?.(peer);
        const startedMs = performance.now();
        run(peer);
        times[peer.name].push(performance.now() - startedMs);
      }
    const [we, they] = [median(times.drydock), median(times.dockerd)];
    rows.push({
      name,
      drydockMs: Math.round(we),
      dockerdMs: Math.round(they),
      ratio: Number((we / they).toFixed(2)),
    });
    if (!options.json)
      console.log(
        `${name.padEnd(28)} ${String(Math.round(we)).padStart(8)} ms ${String(Math.round(they)).padStart(8)} ms   x ${(we / they).toFixed(2)}`,
      );
  }
  const memory = { drydockMib: peakMib(ours.pid), dockerdMib: peakMib(theirs.pid) };
  if (options.json) console.log(JSON.stringify({ rows, memory, load: loadavg()[0] }));
  else
    console.log(
      `peak memory                  ${String(memory.drydockMib).padStart(8)} MiB ${String(memory.dockerdMib).padStart(7)} MiB   (load ${loadavg()[0].toFixed(1)})`,
    );
}

try {
  if (!options.json) console.log(`${''.padEnd(28)} ${'drydock'.padStart(8)}    ${'dockerd'.padStart(8)}`);
  await main();
} finally {
  await bench.close();
}
