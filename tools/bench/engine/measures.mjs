// What is measured. A measure has rounds, and each round of it gives one or several figures in its unit.
import { startDaemon } from '../daemons.mjs';
import { IMAGE } from './image.mjs';
import { pssMib } from './memory.mjs';

const MANY = 200;
const RUNNING = 50;
const LOG_MIB = 32;
const COPY_MIB = 64;
const FILES = 500;

async function timed(work) {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

/** A container that lives until it is killed. */
const idle = { Image: IMAGE, Cmd: ['sleep', '1000'], StopSignal: 'SIGKILL' };

async function create(api, config = idle) {
  return (await api.json('POST', '/containers/create', config)).Id;
}

const remove = (api, id) => api.bytes('DELETE', `/containers/${id}?force=1`);
const wait = (api, id) => api.json('POST', `/containers/${id}/wait`);

async function execTrue(api, id) {
  const { Id } = await api.json('POST', `/containers/${id}/exec`, {
    Cmd: ['true'],
    AttachStdout: true,
    AttachStderr: true,
  });
  await api.drain('POST', `/exec/${Id}/start`, {});
  const { ExitCode } = await api.json('GET', `/exec/${Id}/json`);
  if (ExitCode !== 0) throw new Error(`exec ended with ${ExitCode}`);
}

async function makeMany(peer, count, started) {
  peer.many = [];
  for (let i = 0; i < count; i++) {
    const id = await create(peer.api);
    peer.many.push(id);
    if (started) await peer.api.bytes('POST', `/containers/${id}/start`);
  }
}

async function removeMany(peer) {
  for (const id of peer.many) await remove(peer.api, id);
}

/** A tar of one file or many. Only what tar(5) needs: ustar headers of regular files. */
function tarOf(files, fileBytes) {
  const padded = Math.ceil(fileBytes / 512) * 512;
  const tar = Buffer.alloc(files * (512 + padded) + 1024, 0x61);
  tar.fill(0, tar.length - 1024);
  for (let i = 0; i < files; i++) {
    const header = tar.subarray(i * (512 + padded), i * (512 + padded) + 512).fill(0);
    header.write(`copied${files}/f${i}`, 0);
    header.write('0000644\x000000000\x000000000\0', 100);
    header.write(`${fileBytes.toString(8).padStart(11, '0')}\x0000000000000\0        0`, 124);
    header.write('ustar\x0000', 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  }
  return tar;
}

const copies = [
  [`one file of ${COPY_MIB} MiB`, 1, COPY_MIB << 20],
  [`${FILES} files of 4 KiB`, FILES, 4096],
].map(([what, files, bytes]) => ({ what, tar: tarOf(files, bytes), path: `/copied${files}` }));

export const measures = [
  {
    name: 'start-up',
    unit: 'ms',
    rounds: 3,
    async run(peer, bench) {
      const other = await startDaemon(bench, peer.name, `${peer.name}-again`);
      await bench.stop(other.child);
      return { 'start-up': other.startUpMs };
    },
  },
  {
    name: 'memory idle',
    unit: 'MiB',
    once: true,
    run: async (peer) => {
      peer.idleMib = pssMib(peer);
      return { 'memory idle': peer.idleMib };
    },
  },
  {
    name: 'run --rm true',
    unit: 'ms',
    rounds: 10,
    targets: { 'run --rm true, CLI': 0.5 },
    run: async ({ docker }) => ({
      'run --rm true, CLI': await timed(() => docker('run', '--rm', IMAGE, 'true')),
    }),
  },
  {
    name: 'create start exec stop remove',
    unit: 'ms',
    rounds: 15,
    targets: { create: 1, start: 0.4, exec: 0.6, remove: 1 },
    async run({ api }) {
      let id;
      const figures = {
        create: await timed(async () => {
          id = await create(api);
        }),
        start: await timed(() => api.bytes('POST', `/containers/${id}/start`)),
        exec: await timed(() => execTrue(api, id)),
        stop: await timed(() => api.bytes('POST', `/containers/${id}/stop`)),
        remove: await timed(() => api.bytes('DELETE', `/containers/${id}`)),
      };
      return figures;
    },
  },
  {
    name: 'events',
    unit: 'ms',
    rounds: 15,
    async before(peer) {
      peer.renamed = await create(peer.api);
      peer.stream = await peer.api.events((event) => event.Action === 'rename' && peer.told?.());
    },
    async run(peer, _bench, round) {
      const told = new Promise((resolve) => {
        peer.told = resolve;
      });
      const latency = timed(() => told);
      await peer.api.bytes('POST', `/containers/${peer.renamed}/rename?name=renamed${round + 1}`);
      return { 'event of a rename, from its request': await latency };
    },
    async after(peer) {
      peer.stream.close();
      await remove(peer.api, peer.renamed);
    },
  },
  {
    name: 'logs',
    unit: 'ms',
    rounds: 3,
    targets: { [`logs: write ${LOG_MIB} MiB`]: 1, [`logs: read ${LOG_MIB} MiB`]: 1 },
    async run({ api }) {
      const line = 'x'.repeat(99);
      const Cmd = ['sh', '-c', `yes ${line} | head -c ${LOG_MIB << 20}`];
      const id = await create(api, { Image: IMAGE, Cmd, NetworkDisabled: true });
      const write = await timed(async () => {
        await api.bytes('POST', `/containers/${id}/start`);
        await wait(api, id);
      });
      let bytes = 0;
      const read = await timed(async () => {
        bytes = await api.drain('GET', `/containers/${id}/logs?stdout=1`);
      });
      if (bytes < LOG_MIB << 20) throw new Error(`${bytes} bytes of logs`);
      await remove(api, id);
      return { [`logs: write ${LOG_MIB} MiB`]: write, [`logs: read ${LOG_MIB} MiB`]: read };
    },
  },
  {
    name: 'cp',
    unit: 'ms',
    rounds: 5,
    targets: Object.fromEntries(
      copies.flatMap(({ what }) => [
        [`cp in: ${what}`, 1],
        [`cp out: ${what}`, 1],
      ]),
    ),
    async run({ api }) {
      const id = await create(api);
      const figures = {};
      for (const { what, tar, path } of copies) {
        figures[`cp in: ${what}`] = await timed(() =>
          api.bytes('PUT', `/containers/${id}/archive?path=/`, tar),
        );
        figures[`cp out: ${what}`] = await timed(() =>
          api.drain('GET', `/containers/${id}/archive?path=${path}`),
        );
      }
      await remove(api, id);
      return figures;
    },
  },
  {
    name: 'ps',
    unit: 'ms',
    rounds: 15,
    targets: { [`ps with ${MANY}`]: 1 },
    before: (peer) => makeMany(peer, MANY, false),
    run: async ({ api }) => ({
      [`ps with ${MANY}`]: await timed(() => api.json('GET', '/containers/json?all=1')),
    }),
    after: removeMany,
  },
  {
    name: `memory at ${RUNNING}`,
    unit: 'MiB',
    once: true,
    targets: { [`memory at ${RUNNING} containers`]: 0.7 },
    before: (peer) => makeMany(peer, RUNNING, true),
    async run(peer) {
      const whole = pssMib(peer);
      return {
        [`memory at ${RUNNING} containers`]: whole,
        // Told only where the idle engine was measured too.
        ...(peer.idleMib && { 'memory per container': (whole - peer.idleMib) / RUNNING }),
      };
    },
    after: removeMany,
  },
];
