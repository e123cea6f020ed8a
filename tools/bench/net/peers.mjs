// The networks that are compared. A peer is started on a namespace of its own and says how the host's loopback is reached
// from there; its process is what CPU time and memory are counted of.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;
const vmWire = fileURLToPath(new URL('./vm-wire.mjs', import.meta.url));

const has = (program) => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
export const inNetns = (netns, ...command) => ['ip', ['netns', 'exec', netns, ...command]];
const ip = (...args) => execFileSync('ip', args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' });

/** CPU seconds that a process and its children have used. */
export function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

/** Resident memory of a process in bytes. */
export function residentBytes(pid) {
  return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_BYTES;
}

/** Descriptors that a process has open. */
export const openDescriptors = (pid) => readdirSync(`/proc/${pid}/fd`).length;

/** True when something listens at a TCP port of this namespace (/proc/net/tcp, state 0A). */
function listens(port) {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  return new RegExp(`:${hex} 00000000:0000 0A`).test(readFileSync('/proc/net/tcp', 'utf8'));
}

async function until(condition, what) {
  for (let i = 0; i < 1000; i++) {
    const found = condition();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`waited in vain for ${what}`);
}

const gatewayOf = (netns) => /default via (\S+)/.exec(ip('-n', netns, 'route'))?.[1];

/** Waits for a process that may have ended already: a signal to the bench may have reached it first. */
const closed = (child) =>
  child.exitCode !== null || child.signalCode !== null ? Promise.resolve() : once(child, 'close');

function end(child) {
  child.kill('SIGTERM');
  return closed(child);
}

/** A process of ours with one network in it, started as its own tree knows how: another commit's may have other names. */
async function startOurs(root, { env, ...settings }) {
  const self = join(root, 'tools/bench/net/drydock-peer.mjs');
  const child = spawn(process.execPath, [self, JSON.stringify({ root, ...settings })], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  const [line] = await Promise.race([once(child.stdout, 'data'), once(child, 'close')]);
  const { gateway } = JSON.parse(line);
  return {
    gateway,
    pid: child.pid,
    async stop() {
      child.stdin.end();
      await closed(child);
    },
  };
}

/** We: one process with one network. `root` is a built tree, `env` what its environment has besides. */
const drydock = (name, root, env) => ({
  name,
  available: () => true,
  publishes: true,
  profiled: true,
  start: (netns, mtu, published, profile) => startOurs(root, { netns, mtu, published, profile, env }),
});

const GUEST_OF_WIRE = '10.98.0.50/24';
const GATEWAY_OF_WIRE = '10.98.0.1';

/** A virtual machine as far as its wire is concerned, which leads to the unix socket of `proxy`. */
async function plugMachine(root, netns, wire, proxy) {
  const [program, args] = inNetns(
    netns,
    ...[process.execPath, vmWire, root, wire, GUEST_OF_WIRE, GATEWAY_OF_WIRE],
  );
  const machine = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await Promise.race([once(machine.stdout, 'data'), once(machine, 'close')]);
  return {
    ...proxy,
    gateway: GATEWAY_OF_WIRE,
    async stop() {
      machine.kill('SIGKILL');
      await closed(machine);
      await proxy.stop();
      rmSync(wire, { force: true });
    },
  };
}

const wireOf = (netns) => join(tmpdir(), `${netns}.sock`);

/** We again, with a virtual machine's wire instead of a TAP of our own. */
const drydockVm = (name, root) => ({
  name,
  available: () => true,
  vm: true,
  profiled: true,
  async start(netns, mtu, published, profile) {
    const wire = wireOf(netns);
    return plugMachine(root, netns, wire, await startOurs(root, { netns, mtu, published, profile, wire }));
  },
});

/** pasta's other half, for machines: the same wire as ours. */
const passt = (root) => ({
  name: 'passt',
  available: () => has('passt'),
  vm: true,
  async start(netns, mtu) {
    const wire = wireOf(netns);
    const child = spawn(
      'passt',
      [
        ...['-f', '-q', '--runas', '0', '-s', wire, '-m', String(mtu), '-t', 'none', '-u', 'none'],
        ...['-a', GUEST_OF_WIRE.split('/')[0], '-n', '24', '-g', GATEWAY_OF_WIRE],
      ],
      { stdio: 'ignore' },
    );
    await until(() => existsSync(wire), 'passt');
    return plugMachine(root, netns, wire, { pid: child.pid, stop: () => end(child) });
  },
});

const pasta = {
  name: 'pasta',
  available: () => has('pasta'),
  publishes: true,
  async start(netns, mtu, published) {
    const ports = published ? `${published.port}:${published.guestPort}` : 'none';
    const child = spawn(
      'pasta',
      [
        ...['-f', '-q', '--config-net', '--runas', '0', '-m', String(mtu), '-t', ports],
        ...['-T', 'none', '-U', 'none', '-u', 'none', '--netns-only', '--netns', `/run/netns/${netns}`],
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    const gateway = await until(() => gatewayOf(netns), 'pasta');
    return { gateway, pid: child.pid, stop: () => end(child) };
  },
};

const slirp = {
  name: 'slirp4netns',
  likeVm: true,
  available: () => has('slirp4netns'),
  async start(netns, mtu) {
    const child = spawn(
      'slirp4netns',
      ['--configure', `--mtu=${mtu}`, '--netns-type=path', `/run/netns/${netns}`, 'tap0'],
      { stdio: 'ignore' },
    );
    await until(() => gatewayOf(netns), 'slirp4netns');
    return { gateway: '10.0.2.2', pid: child.pid, stop: () => end(child) };
  },
};

/** The kernel's wire between the namespace and another that plays the host. */
async function makeVeth(netns, mtu) {
  const far = `${netns}-far`;
  ip('netns', 'add', far);
  const [near, peer] = [
    ['eth0', 'netns', netns],
    ['eth0', 'netns', far],
  ];
  ip('link', 'add', ...near, 'type', 'veth', 'peer', 'name', ...peer);
  for (const [where, address] of [
    [netns, '10.99.0.2/24'],
    [far, '10.99.0.1/24'],
  ]) {
    ip('-n', where, 'addr', 'add', address, 'dev', 'eth0');
    ip('-n', where, 'link', 'set', 'eth0', 'up', 'mtu', String(mtu));
    ip('-n', where, 'link', 'set', 'lo', 'up');
  }
  return { gateway: '10.99.0.1', serverNetns: far, stop: async () => ip('netns', 'del', far) };
}

/** No proxy: the limit of what a wire can do. */
const veth = { name: 'veth', available: () => true, start: makeVeth };

/** What publishes ports of docker's containers where iptables does not: a process per port, over a veth. */
const dockerProxy = {
  name: 'docker-proxy',
  available: () => has('docker-proxy'),
  publishes: true,
  onlyPublishes: true,
  async start(netns, mtu, { port, guestPort }) {
    const wire = await makeVeth(netns, mtu);
    const [program, args] = inNetns(
      wire.serverNetns,
      ...['docker-proxy', '-proto', 'tcp', '-host-ip', '127.0.0.1', '-host-port', String(port)],
      ...['-container-ip', '10.99.0.2', '-container-port', String(guestPort)],
    );
    // Its descriptor 3 tells whether it listens.
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
    await once(child.stdio[3], 'data');
    return {
      ...wire,
      clientNetns: wire.serverNetns,
      pid: child.pid,
      async stop() {
        await end(child);
        await wire.stop();
      },
    };
  },
};

/** Publishes ports of rootless containers, by its own driver, over a network of slirp4netns. It wants subordinate users, which a mount of its own gives it. */
const rootlesskit = {
  name: 'rootlesskit',
  available: () => has('rootlesskit') && has('slirp4netns') && has('newuidmap'),
  publishes: true,
  onlyPublishes: true,
  async start(netns, mtu, { port, guestPort }) {
    const folder = mkdtempSync(join(tmpdir(), 'rootlesskit-'));
    const ids = join(folder, 'ids');
    writeFileSync(ids, 'root:100000:65536\n');
    const script = 'mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && exec rootlesskit "$@"';
    const child = spawn(
      'unshare',
      [
        ...['-m', '--propagation', 'private', 'sh', '-c', script, ids, `--state-dir=${folder}/state`],
        ...['--net=slirp4netns', `--mtu=${mtu}`, '--port-driver=builtin'],
        ...['-p', `127.0.0.1:${port}:${guestPort}/tcp`, 'sleep', 'infinity'],
      ],
      { stdio: 'ignore' },
    );
    const stop = async () => {
      await end(child);
      rmSync(folder, { recursive: true, force: true });
    };
    try {
      const inside = join(folder, 'state', 'child_pid');
      const inner = await until(
        () => existsSync(inside) && readFileSync(inside, 'utf8').trim(),
        'rootlesskit',
      );
      // The namespace is one that it has made, in place of the one that was made for it.
      ip('netns', 'del', netns);
      ip('netns', 'attach', netns, inner);
      await until(() => gatewayOf(netns), 'rootlesskit');
      await until(() => listens(port), 'the port of rootlesskit');
      return { gateway: '10.0.2.2', pid: child.pid, stop };
    } catch (error) {
      await stop();
      throw error;
    }
  },
};

/** Neither wire nor proxy. */
const loopback = {
  name: 'loopback',
  available: () => true,
  async start(netns) {
    ip('-n', netns, 'link', 'set', 'lo', 'up');
    return { gateway: '127.0.0.1', serverNetns: netns, stop: async () => {} };
  },
};

/** We, with epoll and one system call each; only when asked for. */
const withoutUring = (root) => ({
  ...drydock('drydock-epoll', root, { DRYDOCK_IO_URING: '0' }),
  onDemand: true,
});

export const peers = (root, against) => [
  drydock('drydock', root),
  drydockVm('drydock', root),
  ...(against
    ? [drydock('drydock (before)', against), drydockVm('drydock (before)', against)]
    : [withoutUring(root), pasta, passt(root), slirp, dockerProxy, rootlesskit, veth, loopback]),
];

let count = 0;

/**
 * Runs `action` on a fresh namespace with the peer in it, and leaves nothing. `profile`: where one that can profile itself
 * writes what it has found when it ends.
 */
export async function withPeer(peer, mtu, published, profile, action) {
  const netns = `ddbench-${process.pid}-${count++}`;
  ip('netns', 'add', netns);
  let running;
  try {
    const begun = performance.now();
    running = await peer.start(netns, mtu, published, peer.profiled ? profile : undefined);
    return await action({ ...running, netns, startMs: performance.now() - begun });
  } finally {
    await running?.stop();
    ip('netns', 'del', netns);
  }
}
