/** What probes ask of a Mac, so that tests can answer in its place. */
import { spawn } from 'node:child_process';
import { readSync } from 'node:fs';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compiledEntry } from '#common/entry';
import { errorCode } from '#common/errors';
import type { DarwinCalls } from '#common/native/darwin/calls';
import type { Trial } from './trial.ts';

/** How a program ended. */
export interface Ended {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** A listener that counts. */
export interface Counter {
  readonly port: number;
  connections(): number;
  close(): Promise<void>;
}

/** See the module's head. */
export interface Bench {
  readonly calls: DarwinCalls;
  run(
    program: string,
    args: string[],
    options?: { input?: string; env?: Record<string, string> },
  ): Promise<Ended>;
  /** Has a process confine itself and act. */
  attempt(trial: Trial, env?: Record<string, string>): Promise<Ended>;
  /** Listens at a path, or at an address on a free port. */
  listen(where: { path: string } | { host: string }): Promise<Counter>;
  /** The next packet of a descriptor; undefined when none comes in time. */
  packet(fd: number): Promise<Buffer | undefined>;
  /** A folder for the time of a probe, with links in its path resolved. */
  withFolder<T>(use: (path: string) => Promise<T>): Promise<T>;
}

const RUN_MS_MAX = 20_000;
const PACKET_MS_MAX = 4000;
/** A read that waits could not be taken back. */
const PACKET_LOOK_MS = 50;
const PACKET_BYTES_MAX = 65_536;

/** This Mac. */
export function thisMac(calls: DarwinCalls): Bench {
  return {
    calls,
    run,
    attempt: (trial, env = {}) =>
      run(
        process.execPath,
        ['--no-warnings', compiledEntry('daemon/launch/darwin-trial'), JSON.stringify(trial)],
        {
          env,
        },
      ),
    listen,
    async packet(fd) {
      calls.setNonBlocking(fd);
      const bytes = Buffer.alloc(PACKET_BYTES_MAX);
      for (let waited = 0; waited < PACKET_MS_MAX; waited += PACKET_LOOK_MS) {
        const length = readNow(fd, bytes);
        if (length > 0) return bytes.subarray(0, length);
        await new Promise((resolve) => setTimeout(resolve, PACKET_LOOK_MS));
      }
      return undefined;
    },
    async withFolder(use) {
      const folder = await realpath(await mkdtemp(join(tmpdir(), 'drydock-probe-')));
      try {
        return await use(folder);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  };
}

/** What can be read without waiting; 0 for nothing. */
function readNow(fd: number, bytes: Buffer): number {
  try {
    return readSync(fd, bytes);
  } catch (error) {
    if (errorCode(error) === 'EAGAIN') return 0;
    throw error;
  }
}

function run(
  program: string,
  args: string[],
  { input = '', env }: { input?: string; env?: Record<string, string> } = {},
): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { env: { ...process.env, ...env }, timeout: RUN_MS_MAX });
    const ended: Ended = { code: null, signal: null, stdout: '', stderr: '' };
    child.stdout.on('data', (data) => {
      ended.stdout += data;
    });
    child.stderr.on('data', (data) => {
      ended.stderr += data;
    });
    child.on('error', (error) => resolve({ ...ended, stderr: error.message }));
    child.on('close', (code, signal) => resolve({ ...ended, code, signal }));
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

function listen(where: { path: string } | { host: string }): Promise<Counter> {
  let count = 0;
  const server = createServer((socket) => {
    count++;
    socket.destroy();
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(where, () => {
      const address = server.address();
      resolve({
        port: typeof address === 'object' && address ? address.port : 0,
        connections: () => count,
        close: () => new Promise((closed) => server.close(() => closed())),
      });
    });
  });
}
