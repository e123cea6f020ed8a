// The networks that are compared. A peer is started on a namespace of its own and says how the host's loopback is reached
// from there; its process is what CPU time and memory are counted of.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;
const vmWire = fileURLToPath(new URL('./vm-wire.mjs', import.meta.url));
const self = fileURLToPath(new URL('./drydock-peer.mjs', import.meta.url));

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

/** We: one process with one network. `root` is a built tree. */
const drydock = (name, root) => ({
  name,
  available: () => true,
  publishes: true,
  async start(netns, mtu, published) {
    const settings = JSON.stringify({ root, netns, mtu, published });
    const child = spawn(process.execPath, [self, settings], { stdio: ['pipe', 'pipe', 'inherit'] });
    const [line] = await once(child.stdout, 'data');
    const { gateway } = JSON.parse(line);
    return {
      gateway,
      pid: child.pid,
      async stop() {
        child.stdin.end();
        await closed(child);
      },
    };
  },
});

/** We again, with a virtual machine's wire instead of a TAP of our own. */
const drydockVm = (root) => ({
  name: 'drydock',
  available: () => true,
  vm: true,
  async start(netns, mtu) {
    const wire = join(tmpdir(), `${netns}.sock`);
    const child = spawn(process.execPath, [self, JSON.stringify({ root, netns, mtu, wire })], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [line] = await once(child.stdout, 'data');
    const { gateway } = JSON.parse(line);
    const [program, args] = inNetns(netns, process.execPath, vmWire, root, wire, '10.98.0.50/24', gateway);
    const machine = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    await Promise.race([once(machine.stdout, 'data'), once(machine, 'close')]);
    return {
      gateway,
      pid: child.pid,
      async stop() {
        machine.kill('SIGKILL');
        await closed(machine);
        child.stdin.end();
        await closed(child);
      },
    };
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

/** Neither wire nor proxy. */
const loopback = {
  name: 'loopback',
  available: () => true,
  async start(netns) {
    ip('-n', netns, 'link', 'set', 'lo', 'up');
    return { gateway: '127.0.0.1', serverNetns: netns, stop: async () => {} };
  },
};

export const peers = (root, against) => [
  drydock('drydock', root),
  drydockVm(root),
  ...(against ? [drydock('drydock (before)', against)] : [pasta, slirp, dockerProxy, veth, loopback]),
];

let count = 0;

/** Runs `action` on a fresh namespace with the peer in it, and leaves nothing. */
export async function withPeer(peer, mtu, published, action) {
  const netns = `ddbench-${process.pid}-${count++}`;
  ip('netns', 'add', netns);
  let running;
  try {
    const begun = performance.now();
    running = await peer.start(netns, mtu, published);
    return await action({ ...running, netns, startMs: performance.now() - begun });
  } finally {
    await running?.stop();
    ip('netns', 'del', netns);
  }
}
