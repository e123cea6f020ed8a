/**
 * The jails of a runtime that gives each a user of its own, for there are no namespaces: what `plain` on Linux and the runtime
 * for Darwin have in common. A note in the exec root says which user a jail has, for the daemon that comes after one that
 * was killed.
 */
import { join } from 'node:path';
import { DrydockError, errorMessage } from '#common/errors';
import type { JailAccess, NamesSocket } from '../../network/proxied/jails.ts';
import { launchError } from '../launcher-channel.ts';
import type { RuntimeOptions } from '../platform.ts';
import type { Jail, JailSpec, ProcessSpec } from '../runtime.ts';
import { jailPolicy } from '../spec/policy.ts';
import { JailNotes } from './notes.ts';
import { checkPromises, jailOwner, type NetworkMeans } from './promises.ts';
import { killAll, type PreparedProcess, UserJail } from './user-jail.ts';
import type { UserProcesses } from './user-processes.ts';

const CREATE_PREFIX = 'failed to create task for container';
const EXEC_PREFIX = 'exec failed: unable to start container process';

/** A process that is wanted in a jail. */
export interface WantedProcess {
  spec: JailSpec;
  owner: number;
  process: ProcessSpec;
  /** Whether it is the jail's first, which finds nothing made yet. */
  first: boolean;
  /** How it reaches its networks, when it is on any. */
  access: JailAccess | undefined;
}

/** What a platform does for them. */
export interface UserPlatform {
  readonly processes: UserProcesses;
  /** Whether a jail can be kept to the ports of its proxy and its own. */
  readonly keepsToPorts: boolean;
  startTime(pid: number): string;
  /** Makes a root ready for its jail. @throws Error; then there is nothing to take back */
  enter?(rootPath: string): void;
  /** Takes that back; also for a jail that a killed daemon has left. @throws Error when there is nothing */
  leave?(rootPath: string): void;
  /** Where a jail's look-ups of names can be led to. @throws Error where the image does not let it be made */
  namesSocket?(spec: JailSpec): NamesSocket;
  /** @throws Error; then nothing of it is left */
  prepare(wanted: WantedProcess): Promise<PreparedProcess>;
}

/** See the module's head. */
export class UserJails {
  readonly #options: RuntimeOptions;
  readonly #platform: UserPlatform;
  readonly #notes: JailNotes;
  readonly #jails = new Map<string, UserJail>();

  constructor(name: string, options: RuntimeOptions, platform: UserPlatform) {
    this.#options = options;
    this.#platform = platform;
    this.#notes = new JailNotes(join(options.execRoot, name));
  }

  /** What there is for jails with a network of their own. */
  get network(): NetworkMeans {
    return this.#options.proxied && this.#platform.keepsToPorts ? 'proxied' : 'none';
  }

  open(): Promise<void> {
    return this.#notes.open();
  }

  /** See Runtime.create. */
  async create(spec: JailSpec): Promise<Jail> {
    const policy = jailPolicy(spec);
    checkPromises(spec, policy, this.network);
    const { processes } = this.#platform;
    const owner = jailOwner(spec.id);
    if (processes.list(owner).length > 0)
      throw new DrydockError('ERR_JAIL', `User ${owner} of container ${spec.id} has processes already.`);
    const undo: (() => Promise<void> | void)[] = [() => this.#notes.remove(spec.id)];
    const release = async (): Promise<void> => {
      for (const step of undo.splice(0).reverse()) await step();
    };
    try {
      await this.#notes.write(spec.id, { owner, rootPath: spec.rootPath });
      this.#platform.enter?.(spec.rootPath);
      undo.push(() => this.#platform.leave?.(spec.rootPath));
      const access =
        policy.network === 'attached'
          ? await this.#options.proxied?.open(policy.ports, this.#platform.namesSocket?.(spec))
          : undefined;
      undo.push(() => access?.close());
      const prepare = (process: ProcessSpec, first: boolean): Promise<PreparedProcess> =>
        this.#prepare({ spec, owner, process: reaching(process, access), first, access });
      const first = await prepare(spec.process, true);
      access?.knownAs(first.pid);
      undo.push(() => void this.#jails.delete(spec.id));
      const jail = new UserJail(
        spec,
        owner,
        first,
        {
          processes,
          startTime: (pid) => this.#platform.startTime(pid),
          prepare: (process) => prepare(process, false),
          release,
        },
        this.#options.clock,
      );
      this.#jails.set(spec.id, jail);
      return jail;
    } catch (error) {
      await release();
      throw launchError(error, CREATE_PREFIX);
    }
  }

  async #prepare(wanted: WantedProcess): Promise<PreparedProcess> {
    const prefix = wanted.first ? CREATE_PREFIX : EXEC_PREFIX;
    const prefixed = (error: unknown): never => {
      throw launchError(error, prefix);
    };
    const prepared = await this.#platform.prepare(wanted).catch(prefixed);
    return { ...prepared, run: () => prepared.run().catch(prefixed) };
  }

  /** See Runtime.sweep. */
  async sweep(): Promise<string[]> {
    const { clock, log } = this.#options;
    const done: string[] = [];
    for (const [id, { owner, rootPath }] of await this.#notes.left((id) => this.#jails.has(id))) {
      await killAll(this.#platform.processes, owner, clock, id);
      try {
        this.#platform.leave?.(rootPath);
      } catch (error) {
        log.warn({ rootPath, error: errorMessage(error) }, 'nothing was left of the root of a jail');
      }
      await this.#notes.remove(id);
      done.push(`ended what was left of container ${id.slice(0, 12)}`);
    }
    return done;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#jails.values()].map((jail) => jail.destroy()));
    await this.#notes.close();
  }
}

/** A process that finds its proxy; what it says itself goes first. */
function reaching(process: ProcessSpec, access: JailAccess | undefined): ProcessSpec {
  if (!access) return process;
  const nameOf = (entry: string): string => entry.split('=', 1)[0]!;
  const own = new Set(process.env.map(nameOf));
  return {
    ...process,
    env: [...access.environment.filter((entry) => !own.has(nameOf(entry))), ...process.env],
  };
}
