/**
 * Jails on Darwin: a user for each, limits of that user, a seatbelt profile, and a chroot where System Integrity
 * Protection lets programs run there. See profile.ts for what the profile says and docs/macos.md for what was never tried.
 *
 * All that is asked of the system goes through {@link DarwinHost}, so that tests see every request and fail each.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants as files, openSync, realpathSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import { compiledEntry } from '#common/entry';
import { DrydockError } from '#common/errors';
import type { DarwinCalls } from '#common/native/darwin/calls';
import { LauncherChannel } from '../launcher-channel.ts';
import { openTerminalStreams, PipeSet, type ProcessStreams } from '../linux/streams.ts';
import { checkPromises, jailOwner } from '../plain/promises.ts';
import type { PreparedProcess } from '../plain/user-jail.ts';
import { UserJails, type WantedProcess } from '../plain/user-jails.ts';
import { signalAllOf, type UserProcesses } from '../plain/user-processes.ts';
import type { RuntimeOptions } from '../platform.ts';
import { type Jail, type JailReportRow, type JailSpec, NO_LIMITS, type Runtime } from '../runtime.ts';
import { jailPolicy } from '../spec/policy.ts';
import { namesSocket } from './names-socket.ts';
import { darwinPlan, darwinReport } from './plan.ts';
import type { RootMode } from './profile.ts';

/** A launcher that was started. */
export interface DarwinLauncher {
  readonly pid: number;
  readonly channel: Pick<LauncherChannel, 'send' | 'expect' | 'gone' | 'destroy'>;
  readonly exited: Promise<{ code: number | null; signal: number | null }>;
}

/** What the runtime asks of the machine. */
export interface DarwinHost {
  readonly calls: DarwinCalls;
  /** Starts a launcher with these as its descriptors 0 to 2. */
  launch(stdio: [number, number, number]): DarwinLauncher;
  signalAll: UserProcesses['signalAll'];
}

/** The machine itself. */
export function thisDarwin(calls: DarwinCalls): DarwinHost {
  return { calls, launch, signalAll: signalAllOf };
}

function launch(stdio: [number, number, number]): DarwinLauncher {
  const child: ChildProcess = spawn(
    process.execPath,
    ['--no-warnings', compiledEntry('daemon/launch/darwin-main')],
    // Its own session, which a terminal can then belong to.
    { argv0: 'drydock-launch', cwd: '/', env: {}, detached: true, stdio: [...stdio, 'pipe'] },
  );
  child.on('error', () => {});
  if (child.pid === undefined) throw new DrydockError('ERR_JAIL', 'The launcher cannot be started.');
  const exited = new Promise<{ code: number | null; signal: number | null }>((resolve) => {
    child.once('exit', (code, signal) =>
      resolve({ code, signal: signal === null ? null : constants.signals[signal] }),
    );
  });
  const died = async (): Promise<DrydockError> => {
    const { code, signal } = await exited;
    return new DrydockError('ERR_JAIL', `The launcher ended before its time (${signal ?? code}).`);
  };
  return { pid: child.pid, channel: new LauncherChannel(child.stdio[3] as Socket, died), exited };
}

/** See {@link Runtime}. */
export class DarwinRuntime implements Runtime {
  readonly name = 'darwin';
  readonly #options: RuntimeOptions;
  readonly #host: DarwinHost;
  readonly #jails: UserJails;

  constructor(options: RuntimeOptions, host: DarwinHost) {
    const { calls, signalAll } = host;
    this.#options = options;
    this.#host = host;
    this.#jails = new UserJails(this.name, options, {
      processes: {
        list: (owner) => calls.processesOf(owner),
        usage: (pid) => calls.usage(pid),
        limitMemory: (pid, bytes) => calls.limitMemory(pid, bytes),
        signalAll,
      },
      keepsToPorts: true,
      startTime: (pid) => calls.startTime(pid),
      namesSocket: ({ id, rootPath }) =>
        namesSocket(this.#mode(), join(options.execRoot, 'names'), id, rootPath),
      prepare: (wanted) => this.#prepare(wanted),
    });
  }

  open(): Promise<void> {
    return this.#jails.open();
  }

  create(spec: JailSpec): Promise<Jail> {
    return this.#jails.create(spec);
  }

  report(spec: JailSpec): JailReportRow[] {
    checkPromises(spec, jailPolicy(spec), this.#jails.network);
    return darwinReport(spec, jailOwner(spec.id), this.#mode());
  }

  info(): ReturnType<Runtime['info']> {
    return {
      cgroupVersion: '2',
      cgroupDriver: 'none',
      securityOptions: ['name=seatbelt,profile=default'],
      warnings: [
        'WARNING: No CPU quota, CPU set or memory reservation support',
        ...(this.#mode() === 'confine'
          ? [
              'WARNING: System Integrity Protection: images are confined in place, without a root of their own',
            ]
          : []),
      ],
      runtimes: {},
      defaultRuntime: this.name,
      limits: { ...NO_LIMITS, pids: true },
    };
  }

  sweep(): Promise<string[]> {
    return this.#jails.sweep();
  }

  close(): Promise<void> {
    return this.#jails.close();
  }

  /** A system that does not tell is taken for one that protects itself. */
  #mode(): RootMode {
    try {
      return this.#host.calls.allowsOwnRoots() ? 'chroot' : 'confine';
    } catch {
      return 'confine';
    }
  }

  async #prepare({ spec, owner, process, first, access }: WantedProcess): Promise<PreparedProcess> {
    const { calls } = this.#host;
    const streams = process.terminal ? this.#openTerminal() : this.#openPipes(process.stdin);
    let launcher: DarwinLauncher | undefined;
    const abandon = async (): Promise<void> => {
      if (launcher) {
        try {
          calls.signal(launcher.pid, constants.signals.SIGKILL);
        } catch {
          // It has ended.
        }
        await launcher.exited;
        launcher.channel.destroy();
      }
      streams.close();
    };
    try {
      const { terminalPath } = streams;
      const place = {
        mode: this.#mode(),
        owner,
        first,
        ...(terminalPath !== undefined && { terminalPath }),
        ...(access && { access }),
      };
      const plan = darwinPlan(spec, process, place, (path) => ({
        isFile: statSync(path).isFile(),
        realPath: realpathSync(path),
      }));
      launcher = this.#host.launch(streams.childEnds);
      streams.closeChildEnds();
      const { channel, pid, exited } = launcher;
      channel.send({ type: 'seatbelt', process, plan });
      await channel.expect('ready');
      return {
        pid,
        abandon,
        run: async () => {
          channel.send({ type: 'run' });
          await channel.expect('executing');
          await channel.gone();
          return {
            streams: streams.open(),
            exited,
            signal: (number) => calls.signal(pid, number),
            close: () => channel.destroy(),
          };
        },
      };
    } catch (error) {
      streams.closeChildEnds();
      await abandon();
      throw error;
    }
  }

  #openTerminal(): Streams {
    const { calls } = this.#host;
    const { master, slavePath } = calls.openTerminal();
    let slave: number;
    try {
      slave = openSync(slavePath, files.O_RDWR | files.O_NOCTTY);
    } catch (error) {
      calls.close(master);
      throw error;
    }
    return {
      terminalPath: slavePath,
      childEnds: [slave, slave, slave],
      closeChildEnds: once(() => closeSync(slave)),
      close: once(() => calls.close(master)),
      open: () => openTerminalStreams(master, this.#options.clock, calls),
    };
  }

  #openPipes(wantsStdin: boolean): Streams {
    const pipes = new PipeSet(this.#host.calls);
    return {
      childEnds: pipes.childEnds,
      closeChildEnds: once(() => pipes.closeChildEnds()),
      close: once(() => pipes.closeOwnEnds()),
      open: () => pipes.open(wantsStdin),
    };
  }
}

/** Standard streams of a process that is being started. */
interface Streams {
  terminalPath?: string;
  childEnds: [number, number, number];
  closeChildEnds(): void;
  close(): void;
  open(): ProcessStreams;
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    action();
  };
}
