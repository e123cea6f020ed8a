/**
 * Debian's dockerd with folders of its own, to compare with. Spoken to over its API, without the CLI. It has no network, or makes its
 * bridge in a network namespace of its own, so that the machine's stays as it is.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';

/** An answer, whole. */
export interface DockerdAnswer {
  status: number;
  body: Buffer;
}

function cgroupParents(): string[] {
  return ['', ...readdirSync('/sys/fs/cgroup')]
    .map((hierarchy) => join('/sys/fs/cgroup', hierarchy, 'docker'))
    .filter(existsSync);
}

export class Dockerd {
  readonly #folder: string;
  readonly #child: ChildProcess;
  readonly #cgroupsBefore = cgroupParents();
  #said = '';

  constructor({ bridge = false }: { bridge?: boolean } = {}) {
    this.#folder = mkdtempSync(`${tmpdir()}/drydock-dockerd-`);
    const options = {
      '-H': `unix://${this.socket}`,
      '--data-root': `${this.#folder}/data`,
      '--exec-root': `${this.#folder}/exec`,
      '-p': `${this.#folder}/pid`,
    };
    const args = [
      ...Object.entries(options).flat(),
      '--iptables=false',
      '--ip6tables=false',
      ...(bridge ? [] : ['--bridge=none']),
    ];
    const [program, before] = bridge ? ['unshare', ['--net', 'dockerd']] : ['dockerd', []];
    this.#child = spawn(program, [...before, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child.stderr!.on('data', (chunk) => {
      this.#said += String(chunk);
    });
  }

  get socket(): string {
    return `${this.#folder}/d.sock`;
  }

  /** Resolves when it answers. @throws what it has said, when it ends instead */
  async ready(): Promise<void> {
    for (;;) {
      if (this.#child.exitCode !== null) throw new Error(`dockerd ended: ${this.#said.slice(-2000)}`);
      const answer = await this.send('GET', '/_ping').catch(() => undefined);
      if (answer?.status === 200) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  send(
    method: string,
    path: string,
    body?: Buffer | Readable,
    type = 'application/x-tar',
  ): Promise<DockerdAnswer> {
    return new Promise((resolve, reject) => {
      const request = http.request(
        { socketPath: this.socket, method, path, headers: body ? { 'Content-Type': type } : {} },
        (response) => {
          const parts: Buffer[] = [];
          response.on('data', (part: Buffer) => parts.push(part));
          response.on('end', () => resolve({ status: response.statusCode!, body: Buffer.concat(parts) }));
          response.on('error', reject);
        },
      );
      request.on('error', reject);
      if (body === undefined || Buffer.isBuffer(body)) request.end(body);
      else body.pipe(request);
    });
  }

  /** The JSON of an answer. @throws its text for anything else than success */
  async json<T>(method: string, path: string, body?: object): Promise<T> {
    const bytes = body && Buffer.from(JSON.stringify(body));
    const answer = await this.send(method, path, bytes, 'application/json');
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${answer.body}`);
    return JSON.parse(answer.body.toString() || 'null') as T;
  }

  async close(): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      if (this.#child.exitCode !== null) resolve();
      else this.#child.once('close', () => resolve());
    });
    this.#child.kill('SIGTERM');
    await ended;
    rmSync(this.#folder, { recursive: true, force: true });
    this.#removeCgroups();
    if (this.#leftMounts()) throw new Error(`dockerd left mounts below ${this.#folder}`);
  }

  /** dockerd leaves the parent of its containers' cgroups behind, in every hierarchy. */
  #removeCgroups(): void {
    for (const path of cgroupParents())
      if (!this.#cgroupsBefore.includes(path) && existsSync(path)) rmdirSync(path);
  }

  #leftMounts(): boolean {
    return readFileSync('/proc/self/mountinfo', 'utf8').includes(this.#folder);
  }
}
