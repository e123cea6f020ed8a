/**
 * Jails without namespaces and control groups: chroot, a user for each, limits of that user, Landlock, a seccomp
 * filter. It has about the powers that Darwin has, so that the daemon's behaviour without namespaces is seen on Linux.
 *
 * The mounts of a jail are the machine's. They all stand on one mount of the root on itself, and end with it. A note in
 * the exec root says which user and which mount a jail has, for the daemon that comes after one that was killed.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { DrydockError, errorMessage } from '#common/errors';
import { landlockVersion } from '#common/native/landlock';
import { mountRoot } from '../../launch/root.ts';
import { linuxSystem } from '../../launch/system.ts';
import { launchError } from '../launcher-channel.ts';
import { LauncherProgram } from '../linux/launcher.ts';
import { processStartTime } from '../linux/proc-stat.ts';
import { seccompFilter } from '../linux/seccomp/filter.ts';
import { linuxStreams } from '../linux/stream-system.ts';
import { openTerminalStreams, type ProcessStreams } from '../linux/streams.ts';
import type { RuntimeOptions } from '../platform.ts';
import {
  type Jail,
  type JailReportRow,
  type JailSpec,
  NO_LIMITS,
  type ProcessSpec,
  type Runtime,
} from '../runtime.ts';
import { jailPolicy } from '../spec/policy.ts';
import { JailNotes } from './notes.ts';
import { confinement, plainReport, plainSpec } from './plan-linux.ts';
import { checkPromises, jailOwner, plainProcess } from './promises.ts';
import { type JailHost, killAll, type PreparedProcess, UserJail } from './user-jail.ts';
import { linuxUserProcesses } from './user-processes-linux.ts';

const CREATE_PREFIX = 'failed to create task for container';
const EXEC_PREFIX = 'exec failed: unable to start container process';

/** See {@link Runtime}. */
export class PlainRuntime implements Runtime {
  readonly name = 'plain';
  readonly #options: RuntimeOptions;
  readonly #notes: JailNotes;
  readonly #jails = new Map<string, UserJail>();
  #program: LauncherProgram | undefined;

  constructor(options: RuntimeOptions) {
    this.#options = options;
    this.#notes = new JailNotes(join(options.execRoot, 'plain'));
  }

  async open(): Promise<void> {
    await this.#notes.open();
    // Every launcher is born where the daemon is: there is no pid namespace to come back from.
    this.#program = new LauncherProgram(-1, this.#options.instance);
  }

  async create(wish: JailSpec): Promise<Jail> {
    checkPromises(wish, jailPolicy(wish));
    const spec = plainSpec(wish);
    const owner = jailOwner(spec.id);
    if (linuxUserProcesses.list(owner).length > 0)
      throw new DrydockError('ERR_JAIL', `User ${owner} of container ${spec.id} has processes already.`);
    await this.#notes.write(spec.id, { owner, rootPath: spec.rootPath });
    let release = (): Promise<void> => this.#notes.remove(spec.id);
    try {
      closeSync(mountRoot(linuxSystem, spec.rootPath));
      release = async () => {
        linuxSystem.detachMount(spec.rootPath);
        await this.#notes.remove(spec.id);
        this.#jails.delete(spec.id);
      };
      const first = await this.#prepare(spec, owner, spec.process, true);
      const host: JailHost = {
        processes: linuxUserProcesses,
        startTime: processStartTime,
        prepare: (process) => this.#prepare(spec, owner, plainProcess(spec, process), false),
        release,
      };
      const jail = new UserJail(spec, owner, first, host, this.#options.clock);
      this.#jails.set(spec.id, jail);
      return jail;
    } catch (error) {
      await release();
      throw launchError(error, CREATE_PREFIX);
    }
  }

  report(spec: JailSpec): JailReportRow[] {
    checkPromises(spec, jailPolicy(spec));
    return plainReport(spec, jailOwner(spec.id), landlockVersion());
  }

  info(): ReturnType<Runtime['info']> {
    return {
      cgroupVersion: '2',
      cgroupDriver: 'none',
      securityOptions: ['name=seccomp,profile=builtin'],
      warnings: [],
      runtimes: {},
      defaultRuntime: this.name,
      // Without control groups there are none.
      limits: NO_LIMITS,
    };
  }

  async sweep(): Promise<string[]> {
    const done: string[] = [];
    for (const [id, { owner, rootPath }] of await this.#notes.left((id) => this.#jails.has(id))) {
      await killAll(linuxUserProcesses, owner, this.#options.clock, id);
      try {
        linuxSystem.detachMount(rootPath);
      } catch (error) {
        this.#options.log.warn({ rootPath, error: errorMessage(error) }, 'no mount of a jail was left');
      }
      await this.#notes.remove(id);
      done.push(`ended what was left of container ${id.slice(0, 12)} and its mounts`);
    }
    return done;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#jails.values()].map((jail) => jail.destroy()));
    this.#program?.close();
    await this.#notes.close();
  }

  async #prepare(
    spec: JailSpec,
    owner: number,
    process: ProcessSpec,
    first: boolean,
  ): Promise<PreparedProcess> {
    const prefix = first ? CREATE_PREFIX : EXEC_PREFIX;
    if (!this.#program) throw new Error('the runtime is not open');
    const launcher = this.#program.start({ kind: 'host' });
    try {
      launcher.channel.send({
        type: 'confine',
        process,
        filter: seccompFilter(spec),
        confinement: confinement(spec, owner, first),
      });
      const { terminalFd } = await launcher.channel.expect('ready');
      const terminal = terminalFd === undefined ? undefined : launcher.takeDescriptor(terminalFd);
      return {
        pid: launcher.pid,
        run: async () => {
          try {
            launcher.channel.send({ type: 'run' });
            await launcher.channel.expect('executing');
            await launcher.channel.gone();
          } catch (error) {
            throw launchError(error, prefix);
          }
          let streams: ProcessStreams;
          if (terminal === undefined) streams = launcher.pipes.open(process.stdin);
          else {
            launcher.pipes.closeOwnEnds();
            streams = openTerminalStreams(terminal, this.#options.clock, linuxStreams);
          }
          return {
            streams,
            exited: launcher.exited,
            signal: (number) => launcher.signal(number),
            close: () => launcher.close(),
          };
        },
        abandon: async () => {
          if (terminal !== undefined) closeSync(terminal);
          await launcher.abandon();
        },
      };
    } catch (error) {
      await launcher.abandon();
      throw launchError(error, prefix);
    }
  }
}
