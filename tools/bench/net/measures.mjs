// What is measured, each on a running peer. A measure gives {value, cpuPerGb?, cpuUs?, p50Us?, p99Us?, descriptors?}.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { cpuSeconds, inNetns, openDescriptors, residentBytes } from './peers.mjs';

const local = (name) => fileURLToPath(new URL(`./${name}`, import.meta.url));
const IPERF_PORT = 5398;
const ECHO_PORT = 5399;

/** Nothing that is measured takes this long; what does is broken, and must not stop the rest. */
const TIMEOUT_MS = 30_000;
/** These are services that run for days: their first second, in which compilers and caches warm up, is not what counts. */
const WARM_UP_SECONDS = '1';

async function output(program, args) {
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
  });
  let text = '';
  let errors = '';
  child.stdout.on('data', (data) => {
    text += data;
  });
  child.stderr.on('data', (data) => {
    errors += data;
  });
  const [code] = await once(child, 'close');
  if (code !== 0)
    throw new Error(`${program} ${args.join(' ')} ended with ${code}: ${errors}${text.slice(0, 300)}`);
  return text;
}

/** Runs a server where the peer's far side is, for the time of `action`. */
async function withServer(peer, command, ready, action) {
  const [program, args] = peer.serverNetns
    ? inNetns(peer.serverNetns, ...command)
    : [command[0], command.slice(1)];
  const server = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    await new Promise((resolve, reject) => {
      let text = '';
      server.stdout.on('data', (data) => {
        text += data;
        if (ready.test(text)) resolve();
      });
      server.once('close', () => reject(new Error(`${command[0]} did not start: ${text}`)));
    });
    return await action();
  } finally {
    if (server.exitCode === null) {
      server.kill('SIGKILL');
      await once(server, 'close');
    }
  }
}

const iperfServer = (peer) => [
  'iperf3',
  '-s',
  '--forceflush',
  '-p',
  String(IPERF_PORT),
  '-B',
  peer.serverNetns ? peer.gateway : '127.0.0.1',
];

/** Throughput of iperf3's client as `run` starts it, after a warm-up. */
async function throughput(peer, run, seconds) {
  await run(WARM_UP_SECONDS);
  const before = peer.pid ? cpuSeconds(peer.pid) : 0;
  const report = JSON.parse(await run(String(seconds)));
  const { bytes, bits_per_second: rate } = report.end.sum_received;
  const cpu = peer.pid ? cpuSeconds(peer.pid) - before : undefined;
  return { value: rate / 1e9, ...(cpu !== undefined && { cpuPerGb: cpu / (bytes / 1e9) }) };
}

const bulk = (name, mtu, flags, vm = false) => ({
  name,
  mtu,
  vm,
  unit: 'Gbit/s',
  run: (peer, seconds) =>
    withServer(peer, iperfServer(peer), /listening/, () => {
      const client = ['iperf3', '-c', peer.gateway, '-p', String(IPERF_PORT), '-J', ...flags];
      return throughput(peer, (time) => output(...inNetns(peer.netns, ...client, '-t', time)), seconds);
    }),
});

const probe = (mode, host, port, seconds, parallel) => [
  ...[process.execPath, local('probe.mjs'), mode, host, String(port), String(seconds), String(parallel)],
];

/** Rate and times of what a probe does, with the CPU time of the peer's process for each. */
async function rate(peer, [program, args]) {
  const before = peer.pid ? cpuSeconds(peer.pid) : 0;
  const { count, total, seconds, p50Us, p99Us } = JSON.parse(await output(program, args));
  const cpuUs = peer.pid ? ((cpuSeconds(peer.pid) - before) * 1e6) / total : undefined;
  return { value: count / seconds, p50Us, p99Us, ...(cpuUs !== undefined && { cpuUs }) };
}

const echo = (name, mode, parallel, unit) => ({
  name,
  mtu: 65520,
  unit,
  run: (peer, seconds) =>
    withEcho(peer, () =>
      rate(peer, inNetns(peer.netns, ...probe(mode, peer.gateway, ECHO_PORT, seconds, parallel))),
    ),
});

const withEcho = (peer, action) =>
  withServer(
    peer,
    [process.execPath, local('echo.mjs'), peer.serverNetns ? peer.gateway : '127.0.0.1', String(ECHO_PORT)],
    /up/,
    action,
  );

/** Time in which what has ended is forgotten: TIME-WAIT, and a collection of garbage or two. */
const SETTLE_MS = 3000;

/**
 * What stays behind when connections come and go: descriptors and resident memory of the peer's process after three rounds of
 * them, against what they were after the first.
 */
const growth = {
  name: 'Growth, new connections',
  mtu: 65520,
  unit: 'KB',
  only: (peer) => peer.pid !== undefined,
  run: (peer, seconds) =>
    withEcho(peer, async () => {
      const round = async () => {
        const command = inNetns(peer.netns, ...probe('crr', peer.gateway, ECHO_PORT, seconds, 32));
        await output(...command);
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
        return { bytes: residentBytes(peer.pid), descriptors: openDescriptors(peer.pid) };
      };
      const first = await round();
      await round();
      const last = await round();
      return {
        value: (last.bytes - first.bytes) / 1e3,
        descriptors: last.descriptors - first.descriptors,
      };
    }),
};

/** The port that is published, and what it leads to. */
export const PUBLISHED = { port: 5397, guestPort: IPERF_PORT };

/** A program on the host's side, which is another namespace for a peer that has a wire. */
const onHost = (peer, ...command) =>
  peer.clientNetns ? inNetns(peer.clientNetns, ...command) : [command[0], command.slice(1)];

/** A client of the host's loopback, through a published port, to a server in the namespace. */
const publishedBulk = (name, flags) => ({
  name,
  mtu: 65520,
  unit: 'Gbit/s',
  published: PUBLISHED,
  run: (peer, seconds) =>
    withServer(
      { serverNetns: peer.netns },
      ['iperf3', '-s', '--forceflush', '-p', String(IPERF_PORT)],
      /listening/,
      () => {
        const client = ['iperf3', '-c', '127.0.0.1', '-p', String(PUBLISHED.port), '-J', ...flags];
        return throughput(peer, (time) => output(...onHost(peer, ...client, '-t', time)), seconds);
      },
    ),
});

const publishedEcho = (name, mode, parallel) => ({
  name,
  mtu: 65520,
  unit: '/s',
  published: PUBLISHED,
  run: (peer, seconds) =>
    withServer(
      { serverNetns: peer.netns },
      [process.execPath, local('echo.mjs'), '0.0.0.0', String(IPERF_PORT)],
      /up/,
      () => rate(peer, onHost(peer, ...probe(mode, '127.0.0.1', PUBLISHED.port, seconds, parallel))),
    ),
});

/** From the start of the process until its namespace has a way out. */
const startTime = {
  name: 'Start time',
  mtu: 65520,
  unit: 'ms',
  only: (peer) => peer.pid !== undefined,
  run: async (peer) => ({ value: peer.startMs }),
};

/** Memory of the peer's process, idle and with open connections. */
const memory = (name, connections) => ({
  name,
  mtu: 65520,
  unit: connections === 0 ? 'MB' : 'KB/connection',
  only: (peer) => peer.pid !== undefined,
  async run(peer) {
    const idle = residentBytes(peer.pid);
    if (connections === 0) return { value: idle / 1e6 };
    const sockets = [];
    const server = net.createServer((socket) => sockets.push(socket.on('error', () => {})));
    server.listen({ port: ECHO_PORT, host: '127.0.0.1', backlog: 4096 });
    await once(server, 'listening');
    const [program, args] = inNetns(
      peer.netns,
      ...[process.execPath, '-e', HOLD, String(connections), peer.gateway, String(ECHO_PORT)],
    );
    const holder = spawn(program, args, {
      stdio: ['pipe', 'pipe', 'ignore'],
      timeout: TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    try {
      const open = once(holder.stdout, 'data');
      const failed = once(holder, 'close').then(() => {
        throw new Error(`${connections} connections could not be opened`);
      });
      await Promise.race([open, failed]);
      return { value: (residentBytes(peer.pid) - idle) / connections / 1e3 };
    } finally {
      holder.kill('SIGKILL');
      for (const socket of sockets) socket.destroy();
      server.close();
    }
  },
});

const HOLD = `
  const [n, host, port] = process.argv.slice(1);
  let open = 0;
  const more = () => require('net').connect(port, host, () => {
    if (++open === Number(n)) console.log('open'); else if (open + 64 <= n) more();
  }).on('error', (e) => { console.error(e); process.exit(1); });
  for (let i = 0; i < Math.min(64, n); i++) more();
  setInterval(() => {}, 1000);`;

export const measures = [
  bulk('TCP up, MTU 65520', 65520, []),
  bulk('TCP down, MTU 65520', 65520, ['-R']),
  bulk('TCP up x8, MTU 65520', 65520, ['-P', '8']),
  bulk('TCP down x8, MTU 65520', 65520, ['-P', '8', '-R']),
  bulk('TCP up, MTU 1500', 1500, []),
  bulk('TCP down, MTU 1500', 1500, ['-R']),
  bulk('VM wire up, MTU 1500', 1500, [], true),
  bulk('VM wire down, MTU 1500', 1500, ['-R'], true),
  echo('Round trips, 1 byte', 'rr', 1, '/s'),
  echo('Round trips, 1 byte, 32 at once', 'rr', 32, '/s'),
  echo('New connections', 'crr', 1, '/s'),
  echo('New connections, 32 at once', 'crr', 32, '/s'),
  echo('UDP echo, 64 bytes', 'udp', 1, '/s'),
  echo('UDP echo, 64 bytes, 32 at once', 'udp', 32, '/s'),
  publishedBulk('Published port, in', []),
  publishedBulk('Published port, out', ['-R']),
  publishedEcho('Published port, round trips', 'rr', 1),
  publishedEcho('Published port, round trips, 32 at once', 'rr', 32),
  publishedEcho('Published port, new connections', 'crr', 1),
  publishedEcho('Published port, new connections, 32 at once', 'crr', 32),
  startTime,
  memory('Memory, idle', 0),
  memory('Memory, 1,000 connections', 1000),
  memory('Memory, 10,000 connections', 10_000),
  growth,
];
