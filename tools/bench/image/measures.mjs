// What the image bench measures. Each: `prepare` (not timed), `work` (timed), `finish`.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const NETWORK = '--network=none';

function tryTo(work) {
  try {
    work();
  } catch {
    // not there yet
  }
}

function context(bench, lines) {
  const folder = mkdtempSync(bench.at('context-'));
  for (let i = 0; i < 200; i++) writeFileSync(join(folder, `file${i}`), `content ${i}\n`.repeat(100));
  writeFileSync(join(folder, 'Dockerfile'), `FROM drydock/host\n${lines.join('\n')}\n`);
  return folder;
}

/** Load, save, push and pull of one image. */
function transfers(bench, { image, title, mib, path }, registry) {
  const forget = ({ docker }, ...names) => {
    for (const name of names) tryTo(() => docker('rmi', '-f', name));
  };
  const load = {
    name: `load ${title}`,
    mib,
    prepare: (peer) => forget(peer, image),
    work: ({ docker }) => docker('load', '-q', '-i', path),
  };
  const save = {
    name: `save ${title}`,
    mib,
    work: ({ docker, name }) => docker('save', '-o', bench.at(`${name}.tar`), image),
    finish: ({ name }) => rmSync(bench.at(`${name}.tar`)),
  };
  if (!registry) return [load, save];
  const push = {
    name: `push ${title}`,
    mib,
    // To a registry of its own for each round: dockerd remembers for ever which one has which layer.
    prepare: (peer) => {
      forget(peer, ...(peer.target ? [peer.target] : []), image);
      peer.docker('load', '-q', '-i', path);
      peer.target = `${registry()}/${image}`;
      peer.docker('tag', image, peer.target);
    },
    work: (peer) => peer.docker('push', '-q', peer.target),
  };
  const pull = {
    name: `pull ${title}`,
    mib,
    prepare: (peer) => forget(peer, image, peer.target),
    work: (peer) => peer.docker('pull', '-q', peer.target),
    finish: (peer) => peer.docker('tag', peer.target, image),
  };
  return [load, save, push, pull];
}

function builds(bench) {
  const steps = Array.from({ length: 10 }, (_, i) =>
    i % 2 ? `RUN echo ${i} > /f${i}` : `COPY file${i}* /d${i}/`,
  );
  const folder = context(bench, steps);
  return [
    {
      name: 'build of 10 steps',
      work: ({ docker }) => docker('build', '-q', '--no-cache', NETWORK, '-t', 'built', folder),
    },
    {
      name: 'the same, cached',
      work: ({ docker }) => docker('build', '-q', NETWORK, '-t', 'built', folder),
    },
  ];
}

function containers(bench) {
  const lines = Array.from({ length: 19 }, (_, i) => `COPY file${i} /deep${i}`);
  const deep = context(bench, lines);
  const write = 'head -c 20000000 /dev/urandom > /f';
  return [
    {
      name: 'commit of 20 MB',
      prepare: ({ docker }) => {
        tryTo(() => docker('rm', '-f', 'committed'));
        docker('run', NETWORK, '--name', 'committed', 'drydock/host', 'sh', '-c', write);
      },
      work: ({ docker }) => docker('commit', 'committed'),
    },
    {
      name: 'run on 20 layers',
      prepare: ({ docker }) => docker('build', '-q', NETWORK, '-t', 'deep', deep),
      work: ({ docker }) => docker('run', '--rm', NETWORK, 'deep', 'true'),
    },
  ];
}

/** All measures in their order. @param registry starts one and gives its address; undefined where there is none */
export function measures(bench, archives, sizes, registry) {
  const big = {
    image: 'big',
    title: `10 x ${sizes.mib} MiB`,
    mib: 10 * sizes.mib,
    path: archives.big,
  };
  const single = {
    image: 'single',
    title: `${sizes.single} MiB in one`,
    mib: sizes.single,
    path: archives.single,
  };
  return [
    ...transfers(bench, big, registry),
    ...transfers(bench, single, registry),
    ...builds(bench),
    ...containers(bench),
  ];
}
