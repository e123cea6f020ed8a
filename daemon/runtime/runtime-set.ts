/**
 * Several runtimes as one, as dockerd's `runtimes`: a container names the one it wants. Our own is always there; an
 * OCI runtime is opened when the first container wants it, so that one that is configured but missing hurts nobody
 * else.
 */
import { DrydockError } from '#common/errors';
import type { RuntimeProgram } from '../config-values.ts';
import type { Jail, JailProcess, JailReportRow, JailSpec, KnownJail, Runtime } from './runtime.ts';

/** The name of our own runtime. */
const OWN_RUNTIME = 'drydock';
/** Names by which docker's clients ask for "the usual one"; a configured runtime of the same name comes first. */
const USUAL: ReadonlySet<string> = new Set([OWN_RUNTIME, 'runc', 'io.containerd.runc.v2']);

/** Makes an OCI runtime, not yet open. */
export type MakeRuntime = (name: string, program: RuntimeProgram) => Runtime;

interface ConfiguredRuntime {
  runtime: Runtime;
  program: RuntimeProgram;
}

/** See the module's head. */
export class RuntimeSet implements Runtime {
  readonly name: string = OWN_RUNTIME;
  readonly #own: Runtime;
  /** Others that are always there; a configured one of the same name comes first. */
  readonly #builtIn: ReadonlyMap<string, Runtime>;
  readonly #make: MakeRuntime;
  #others: ReadonlyMap<string, ConfiguredRuntime> = new Map();
  #default: string = OWN_RUNTIME;
  readonly #opened = new Map<Runtime, Promise<void>>();
  readonly #liveRestore: boolean;

  /** @throws DrydockError ERR_BAD_CONFIG when the default is not among them. */
  constructor(
    own: Runtime,
    builtIn: ReadonlyMap<string, Runtime>,
    make: MakeRuntime,
    programs: Record<string, RuntimeProgram>,
    defaultName: string,
    liveRestore = false,
  ) {
    this.#liveRestore = liveRestore;
    this.#own = own;
    this.#builtIn = builtIn;
    this.#make = make;
    this.reload(programs, defaultName);
  }

  /**
   * Other runtimes from now on. Containers that run keep theirs; an unchanged one stays as it is.
   * @throws DrydockError ERR_BAD_CONFIG when the default is not among them; then nothing has changed
   */
  reload(programs: Record<string, RuntimeProgram>, defaultName: string): void {
    const name = defaultName || OWN_RUNTIME;
    if (!Object.hasOwn(programs, name) && !this.#builtIn.has(name) && !USUAL.has(name))
      throw new DrydockError('ERR_BAD_CONFIG', `specified default runtime '${name}' does not exist`);
    const others = Object.entries(programs).map(([key, program]) => {
      const before = this.#others.get(key);
      const same = before && JSON.stringify(before.program) === JSON.stringify(program);
      return [key, same ? before : { runtime: this.#make(key, program), program }] as const;
    });
    const builtIn = [...this.#builtIn].map(
      ([key, runtime]) => [key, { runtime, program: { path: key } }] as const,
    );
    this.#others = new Map([...builtIn, ...others]);
    this.#default = name;
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
    const runtime = this.#choose(spec.runtime);
    const rows = runtime.report(spec);
    if (this.#liveRestore && !runtime.restore)
      rows.push({
        feature: 'live-restore',
        asked: 'containers outlive the daemon',
        got: 'none',
        how: `those of the runtime ${runtime.name} end with it`,
      });
    return rows;
  }

  async restore(spec: JailSpec, known: KnownJail): Promise<{ jail: Jail; process: JailProcess } | undefined> {
    const runtime = this.#find(spec.runtime || this.#default);
    if (!runtime?.restore) return undefined;
    await this.#open(runtime);
    return runtime.restore(spec, known);
  }

  info(): ReturnType<Runtime['info']> {
    const runtimes = Object.fromEntries([...this.#others].map(([name, { program }]) => [name, program]));
    return {
      ...this.#own.info(),
      runtimes: { [OWN_RUNTIME]: { path: OWN_RUNTIME }, ...runtimes },
      defaultRuntime: this.#default,
    };
  }

  async sweep(known: KnownJail[], going: ReadonlySet<string>): Promise<string[]> {
    const done = await this.#own.sweep(known, going);
    // The processes are gone now, by their control groups; what is left is the others' own book-keeping.
    for (const { runtime } of this.#others.values()) done.push(...(await runtime.sweep(known, going)));
    return done;
  }

  async close(): Promise<void> {
    // Those that a reload took away are among the opened ones too; ours ends last.
    for (const runtime of this.#opened.keys()) if (runtime !== this.#own) await runtime.close();
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
