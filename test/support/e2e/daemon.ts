/** A Drydock daemon of a test's own, and the docker CLI pointed at it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compiledEntry } from '#common/entry';

/** The image that every daemon has with no registry in reach. */
export const IMAGE = 'drydock/host';

/** The docker CLIs to prove against: `DRYDOCK_TEST_DOCKER_CLIS` (colon-separated paths) or the one on PATH. */
export const dockerClis: string[] = process.env.DRYDOCK_TEST_DOCKER_CLIS?.split(':').filter(Boolean) ?? [
  'docker',
];

/** What a finished command left. */
export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Options of one docker call. */
export interface DockerOptions {
  cli?: string;
  input?: string | Buffer;
  env?: Record<string, string>;
}

/** How a daemon is started, if not plainly. */
export interface DaemonStart {
  env?: Record<string, string>;
  /** Another program than this tree's. */
  entry?: string;
  /** Another Node than that of the tests. */
  node?: string;
  /** A command that becomes the daemon's process. */
  wrapper?: string[];
}

/** Where a daemon can be reached: enough to drive it from any test process. */
export interface DaemonAddress {
  socketPath: string;
  dataRoot: string;
  configFolder: string;
}

/** Resolves when `condition` is true, or throws with `what` after `timeoutMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  timeoutMs = 20_000,
): Promise<void> {
  const endAt = Date.now() + timeoutMs;
  while (!(await condition())) {
    if (Date.now() > endAt) throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs a program to its end. */
export function finish(child: ChildProcess, input?: string | Buffer): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout?.on('data', (chunk) => stdout.push(chunk));
    child.stderr?.on('data', (chunk) => stderr.push(chunk));
    child.on('error', reject);
    child.on('close', (code) =>
      resolve({ code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }),
    );
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

/** The docker CLI against one daemon. */
export class Docker {
  readonly address: DaemonAddress;

  constructor(address: DaemonAddress) {
    this.address = address;
  }

  /** The environment that points a client at this daemon, and away from the user's own configuration. */
  environment(extra: Record<string, string> = {}): NodeJS.ProcessEnv {
    return {
      ...process.env,
      DOCKER_HOST: `unix://${this.address.socketPath}`,
      DOCKER_CONFIG: this.address.configFolder,
      DOCKER_CLI_HINTS: 'false',
      ...extra,
    };
  }

  /** Starts the CLI with pipes. */
  spawn(args: string[], options: DockerOptions = {}): ChildProcess {
    return spawn(options.cli ?? dockerClis[0]!, args, { env: this.environment(options.env), stdio: 'pipe' });
  }

  /** Runs the CLI to its end, whatever its exit code. */
  run(args: string[], options: DockerOptions = {}): Promise<Finished> {
    return finish(this.spawn(args, options), options.input);
  }

  /** Runs the CLI and returns its trimmed standard output. @throws Error when it fails. */
  async ok(args: string[], options: DockerOptions = {}): Promise<string> {
    const { code, stdout, stderr } = await this.run(args, options);
    if (code !== 0) throw new Error(`docker ${args.join(' ')} exited ${code}: ${stderr}${stdout}`);
    return stdout.trim();
  }

  /** `docker inspect` of one object. */
  async inspect<T = Record<string, unknown>>(name: string): Promise<T> {
    return (JSON.parse(await this.ok(['inspect', name])) as [T])[0];
  }

  /** Removes every container. */
  async removeAll(): Promise<void> {
    const ids = (await this.ok(['ps', '-aq'])).split('\n').filter(Boolean);
    if (ids.length > 0) await this.run(['rm', '-f', ...ids]);
  }

  /** A plain API request. */
  api(
    method: string,
    path: string,
    body?: string | object,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; body: string; headers: IncomingHttpHeaders }> {
    return new Promise((resolve, reject) => {
      const text = typeof body === 'object' ? JSON.stringify(body) : body;
      const outgoing = request(
        {
          socketPath: this.address.socketPath,
          method,
          path,
          headers:
            text === undefined
              ? headers
              : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), ...headers },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk) => chunks.push(chunk));
          response.on('end', () =>
            resolve({
              status: response.statusCode ?? 0,
              body: Buffer.concat(chunks).toString(),
              headers: response.headers,
            }),
          );
          response.on('error', reject);
        },
      );
      outgoing.on('error', reject);
      outgoing.end(text);
    });
  }
}

/** Daemons that a failed test did not end: they go with its process. */
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Ends a child with this process, whatever becomes of the test. */
export function endWithTests(child: ChildProcess): void {
  running.add(child);
  child.once('exit', () => running.delete(child));
}

/** A running daemon. */
export class TestDaemon extends Docker {
  readonly process: ChildProcess;
  #log = '';

  private constructor(address: DaemonAddress, process: ChildProcess) {
    super(address);
    this.process = process;
    for (const stream of [process.stdout!, process.stderr!])
      stream.on('data', (chunk) => (this.#log += chunk));
  }

  /** Folders for a daemon of its own; pass them to {@link launch}, more than once for a restart. */
  static makeAddress(): DaemonAddress {
    const folder = mkdtempSync(join(tmpdir(), 'drydock-e2e-'));
    return {
      socketPath: join(folder, 'docker.sock'),
      dataRoot: join(folder, 'data'),
      configFolder: join(folder, 'docker-config'),
    };
  }

  /** Starts a daemon and waits until it answers. */
  static async launch(
    address: DaemonAddress = TestDaemon.makeAddress(),
    args: string[] = [],
    options: DaemonStart = {},
  ): Promise<TestDaemon> {
    const daemon = TestDaemon.spawnProcess(address, args, options);
    try {
      await until(
        async () => {
          if (daemon.process.exitCode !== null)
            throw new Error(`the daemon exited with ${daemon.process.exitCode}`);
          // Its banner, in one piece, is the last thing before it serves whatever comes.
          if (!daemon.log.includes(' is ready. ')) return false;
          return (await daemon.api('GET', '/_ping').catch(() => undefined))?.status === 200;
        },
        'the daemon answers',
        60_000,
      );
    } catch (error) {
      daemon.process.kill('SIGKILL');
      throw new Error(`${(error as Error).message}\n${daemon.log}`);
    }
    return daemon;
  }

  /** Starts the daemon's process only. */
  static spawnProcess(
    address: DaemonAddress,
    args: string[] = [],
    {
      env = {},
      entry = compiledEntry('daemon/bin'),
      node = process.execPath,
      wrapper = [],
    }: DaemonStart = {},
  ): TestDaemon {
    const [command = node, ...before] = [...wrapper, node];
    const child = spawn(
      command,
      [
        ...before,
        entry,
        'daemon',
        '--host',
        `unix://${address.socketPath}`,
        '--data-root',
        address.dataRoot,
        '--exec-root',
        join(address.dataRoot, '..', 'exec'),
        ...args,
      ],
      { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } },
    );
    endWithTests(child);
    return new TestDaemon(address, child);
  }

  /** All that the daemon has printed. */
  get log(): string {
    return this.#log;
  }

  /** Resolves with the exit code, or the signal's name, when the daemon's process has ended. */
  get exited(): Promise<number | string> {
    return new Promise((resolve) => {
      const tell = (): void => resolve(this.process.exitCode ?? this.process.signalCode ?? 0);
      if (this.process.exitCode !== null || this.process.signalCode !== null) tell();
      else this.process.once('exit', tell);
    });
  }

  /** Ends the daemon as a user would. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | string> {
    this.process.kill(signal);
    return this.exited;
  }

  /** Removes the folders of a daemon that has ended. */
  static forget(address: DaemonAddress): void {
    rmSync(join(address.dataRoot, '..'), { recursive: true, force: true });
  }
}
