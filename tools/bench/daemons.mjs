// The two daemons that the benches compare: ours and Debian's dockerd, each with folders and a private socket of its own.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const PING_MS = 10;
const START_MS_MAX = 30_000;

export const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

function cgroupParents() {
  return ['', ...readdirSync('/sys/fs/cgroup')]
    .map((hierarchy) => join('/sys/fs/cgroup', hierarchy, 'docker'))
    .filter(existsSync);
}

/** A folder and the processes of one bench, which all end with it. */
export class Bench {
  folder = mkdtempSync(join(tmpdir(), 'drydock-bench-'));
  #children = [];
  #cgroupsBefore = cgroupParents();

  constructor() {
    // A measure under way fails when its daemon ends, which leads to close().
    for (const signal of ['SIGINT', 'SIGTERM'])
      process.once(signal, () => {
        for (const child of this.#children) child.kill('SIGTERM');
      });
  }

  at(name) {
    return join(this.folder, name);
  }

  start(program, args) {
    const child = spawn(program, args, { stdio: 'ignore' });
    this.#children.push(child);
    return child;
  }

  async stop(child) {
    const ended = new Promise((resolve) =>
      child.exitCode === null && child.signalCode === null ? child.once('close', resolve) : resolve(),
    );
    child.kill('SIGTERM');
    await ended;
  }

  async close() {
    await Promise.all(this.#children.map((child) => this.stop(child)));
    rmSync(this.folder, { recursive: true, force: true });
    // dockerd leaves the parent of its containers' cgroups behind, in every hierarchy.
    for (const path of cgroupParents())
      if (!this.#cgroupsBefore.includes(path) && existsSync(path)) rmdirSync(path);
  }
}

/** How each daemon is started on folders named after `name`. */
function command(bench, kind, name, ownNetwork) {
  const socket = bench.at(`${name}.sock`);
  const places = [
    '-H',
    `unix://${socket}`,
    '--data-root',
    bench.at(name),
    '--exec-root',
    bench.at(`${name}-exec`),
  ];
  if (kind === 'drydock')
    return {
      socket,
      program: process.execPath,
      args: [join(root, 'dist/daemon/bin.js'), 'daemon', ...places],
    };
  const args = [...places, '-p', bench.at(`${name}.pid`), '--iptables=false', '--ip6tables=false'];
  return ownNetwork
    ? { socket, program: 'unshare', args: ['--net', 'dockerd', ...args] }
    : { socket, program: 'dockerd', args };
}

/**
 * Starts a daemon and waits until it answers. Resolves with it, the CLI for it, and how long that took.
 * @param ownNetwork whether dockerd makes its bridge in a network namespace of its own, so that the host's network stays
 * as it is
 */
export async function startDaemon(bench, kind, name = kind, { ownNetwork = true } = {}) {
  const { socket, program, args } = command(bench, kind, name, ownNetwork);
  const startedMs = performance.now();
  const child = bench.start(program, args);
  while (!(await answers(socket))) {
    if (child.exitCode !== null || performance.now() - startedMs > START_MS_MAX)
      throw new Error(`${kind} does not answer`);
    await sleep(PING_MS);
  }
  const startUpMs = performance.now() - startedMs;
  const env = {
    ...process.env,
    DOCKER_HOST: `unix://${socket}`,
    DOCKER_BUILDKIT: '0',
    DOCKER_CONFIG: bench.at('cli'),
  };
  const docker = (...words) =>
    execFileSync('docker', words, { env, stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 1 << 28 }).toString();
  return { name: kind, child, pid: child.pid, socket, docker, startUpMs, folder: bench.at(name) };
}

function answers(socket) {
  return new Promise((resolve) => {
    const ping = request({ socketPath: socket, path: '/_ping' }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode === 200));
    });
    ping.on('error', () => resolve(false));
    ping.end();
  });
}
