/**
 * Jails without namespaces and control groups: chroot, a user for each, limits of that user, Landlock, a seccomp
 * filter. It has about the powers that Darwin has, so that the daemon's behaviour without namespaces is seen on Linux.
 *
 * The mounts of a jail are the machine's. They all stand on one mount of the root on itself, and end with it.
 */
import { closeSync } from 'node:fs';
import { landlockVersion } from '#common/native/landlock';
import { mountRoot } from '../../launch/root.ts';
import { linuxSystem } from '../../launch/system.ts';
import { LauncherProgram } from '../linux/launcher.ts';
import { processStartTime } from '../linux/proc-stat.ts';
import { seccompFilter } from '../linux/seccomp/filter.ts';
import { linuxStreams } from '../linux/stream-system.ts';
import { openTerminalStreams, type ProcessStreams } from '../linux/streams.ts';
import type { RuntimeOptions } from '../platform.ts';
import { type Jail, type JailReportRow, type JailSpec, NO_LIMITS, type Runtime } from '../runtime.ts';
import { jailPolicy } from '../spec/policy.ts';
import { confinement, plainReport, plainSpec } from './plan-linux.ts';
import { checkPromises, jailOwner, plainProcess } from './promises.ts';
import type { PreparedProcess } from './user-jail.ts';
import { UserJails, type WantedProcess } from './user-jails.ts';
import { linuxUserProcesses } from './user-processes-linux.ts';

/** The first version of Landlock that knows TCP ports. */
const LANDLOCK_WITH_PORTS = 4;

/** See {@link Runtime}. */
export class PlainRuntime implements Runtime {
  readonly name = 'plain';
  readonly #options: RuntimeOptions;
  readonly #jails: UserJails;
  #program: LauncherProgram | undefined;

  constructor(options: RuntimeOptions) {
    this.#options = options;
    this.#jails = new UserJails(this.name, options, {
      processes: linuxUserProcesses,
      keepsToPorts: landlockVersion() >= LANDLOCK_WITH_PORTS,
      startTime: processStartTime,
      enter: (rootPath) => closeSync(mountRoot(linuxSystem, rootPath)),
      leave: (rootPath) => linuxSystem.detachMount(rootPath),
      prepare: (wanted) => this.#prepare(wanted),
    });
  }

  async open(): Promise<void> {
    await this.#jails.open();
    // Every launcher is born where the daemon is: there is no pid namespace to come back from.
    this.#program = new LauncherProgram(-1, this.#options.instance);
  }

  create(wish: JailSpec): Promise<Jail> {
    return this.#jails.create(wish);
  }

  report(spec: JailSpec): JailReportRow[] {
    checkPromises(spec, jailPolicy(spec), this.#jails.network);
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

  sweep(): Promise<string[]> {
    return this.#jails.sweep();
  }

  async close(): Promise<void> {
    await this.#jails.close();
    this.#program?.close();
  }

  async #prepare({
    spec: wish,
    owner,
    process: wanted,
    first,
    access,
  }: WantedProcess): Promise<PreparedProcess> {
    if (!this.#program) throw new Error('the runtime is not open');
    const spec = plainSpec(wish);
    const process = plainProcess(spec, wanted);
    const launcher = this.#program.start({ kind: 'host' });
    try {
      launcher.channel.send({
        type: 'confine',
        process,
        filter: seccompFilter(spec),
        confinement: confinement(spec, owner, first, access?.proxyPort),
      });
      const { terminalFd } = await launcher.channel.expect('ready');
      const terminal = terminalFd === undefined ? undefined : launcher.takeDescriptor(terminalFd);
      return {
        pid: launcher.pid,
        run: async () => {
          launcher.channel.send({ type: 'run' });
          await launcher.channel.expect('executing');
          await launcher.channel.gone();
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
      throw error;
    }
  }
}
