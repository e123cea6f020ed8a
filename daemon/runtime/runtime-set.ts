/**
 * Several runtimes as one, as dockerd's `runtimes`: a container names the one it wants. Our own is always there; an
 * OCI runtime is opened when the first container wants it, so that one that is configured but missing hurts nobody
 * else.
 */
import { DrydockError } from '#common/errors';
import type { Jail, JailReportRow, JailSpec, KnownJail, Runtime } from './runtime.ts';

/** The name of our own runtime. */
const OWN_RUNTIME = 'drydock';
/** Names by which docker's clients ask for "the usual one"; a configured runtime of the same name comes first. */
const USUAL: ReadonlySet<string> = new Set([OWN_RUNTIME, 'runc', 'io.containerd.runc.v2']);

/** A configured runtime. */
export interface ConfiguredRuntime {
  runtime: Runtime;
  /** For `docker info`. */
  path: string;
}

/** See the module's head. */
export class RuntimeSet implements Runtime {
  readonly name: string = OWN_RUNTIME;
  readonly #own: Runtime;
  readonly #others: ReadonlyMap<string, ConfiguredRuntime>;
  readonly #default: string;
  readonly #opened = new Map<Runtime, Promise<void>>();

  /** @throws DrydockError ERR_BAD_CONFIG when the default is not among them. */
  constructor(own: Runtime, others: ReadonlyMap<string, ConfiguredRuntime>, defaultName: string) {
    this.#own = own;
    this.#others = others;
    this.#default = defaultName || OWN_RUNTIME;
    if (!this.#find(this.#default))
      throw new DrydockError('ERR_BAD_CONFIG', `specified default runtime '${this.#default}' does not exist`);
  }

  async open(): Promise<void> {
    await this.#open(this.#own);
  }

  async create(spec: JailSpec): Promise<Jail> {
    const runtime = this.#choose(spec.runtime);
    await this.#open(runtime);
    return runtime.create(spec);
  }

  report(spec: JailSpec): JailReportRow[] {
    return this.#choose(spec.runtime).report(spec);
  }

  info(): ReturnType<Runtime['info']> {
    const runtimes = Object.fromEntries([...this.#others].map(([name, { path }]) => [name, { path }]));
    return {
      ...this.#own.info(),
      runtimes: { [OWN_RUNTIME]: { path: OWN_RUNTIME }, ...runtimes },
      defaultRuntime: this.#default,
    };
  }

  async sweep(known: KnownJail[]): Promise<string[]> {
    const done = await this.#own.sweep(known);
    // The processes are gone now, by their control groups; what is left is the others' own book-keeping.
    for (const { runtime } of this.#others.values()) done.push(...(await runtime.sweep(known)));
    return done;
  }

  async close(): Promise<void> {
    for (const { runtime } of this.#others.values()) if (this.#opened.has(runtime)) await runtime.close();
    await this.#own.close();
  }

  #open(runtime: Runtime): Promise<void> {
    const before = this.#opened.get(runtime);
    if (before) return before;
    const opening = runtime.open();
    this.#opened.set(runtime, opening);
    // A runtime that was missing may be installed by the next time.
    opening.catch(() => this.#opened.delete(runtime));
    return opening;
  }

  #choose(name: string | undefined): Runtime {
    const runtime = this.#find(name || this.#default);
    if (runtime) return runtime;
    throw new DrydockError('ERR_BAD_PARAMETER', `unknown or invalid runtime name: ${name}`);
  }

  #find(name: string): Runtime | undefined {
    return this.#others.get(name)?.runtime ?? (USUAL.has(name) ? this.#own : undefined);
  }
}
