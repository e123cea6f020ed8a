/**
 * Network namespaces of a test's own, named after its process so that runs side by side do not meet. Programs are run in
 * them asynchronously: the servers they talk to live in the test's own process.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';

/** How a program ended. */
export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A program that is running in a namespace. */
export interface Running {
  /** Resolves when a line of its output matches. */
  line(pattern: RegExp): Promise<string>;
  kill(): void;
  readonly ended: Promise<Ran>;
}

let count = 0;

/** A network namespace made by `ip netns add`. */
export class Netns {
  readonly name: string;
  readonly path: string;
  readonly #running = new Set<Running>();

  constructor() {
    this.name = `dd-test-${process.pid}-${count++}`;
    this.path = `/run/netns/${this.name}`;
    execFileSync('ip', ['netns', 'add', this.name]);
  }

  /** Starts a program in the namespace. */
  start(program: string, ...args: string[]): Running {
    const child = spawn('ip', ['netns', 'exec', this.name, program, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    const watchers = new Set<() => void>();
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
      for (const look of watchers) look();
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, stdout, stderr }));
    const running: Running = {
      line: (pattern) =>
        new Promise((resolve, reject) => {
          const look = (): void => {
            const found = stdout.split('\n').find((line) => pattern.test(line));
            if (found === undefined) return;
            watchers.delete(look);
            resolve(found);
          };
          watchers.add(look);
          look();
          ended.then(
            (ran) => reject(new Error(`${program} ended with ${ran.code} before ${pattern}: ${ran.stderr}`)),
            reject,
          );
        }),
      kill: () => child.kill('SIGKILL'),
      ended,
    };
    this.#running.add(running);
    ended.then(() => this.#running.delete(running)).catch(() => {});
    return running;
  }

  /** Runs a program in the namespace to its end. */
  run(program: string, ...args: string[]): Promise<Ran> {
    return this.start(program, ...args).ended;
  }

  /** Runs JavaScript in the namespace; what it prints is its result. @throws Error when it fails */
  async node(script: string): Promise<string> {
    const { code, stdout, stderr } = await this.run(process.execPath, '-e', script);
    if (code !== 0) throw new Error(`the script ended with ${code}: ${stderr}`);
    return stdout.trim();
  }

  /** Ends what runs in the namespace, and the namespace. */
  async remove(): Promise<void> {
    const running = [...this.#running];
    for (const each of running) each.kill();
    await Promise.all(running.map((each) => each.ended));
    execFileSync('ip', ['netns', 'del', this.name]);
  }
}
