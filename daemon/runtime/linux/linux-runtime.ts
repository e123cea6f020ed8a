/**
 * Containers by the kernel's own means: namespaces, control groups, capabilities, pivot_root. Each is made by a
 * launcher (see daemon/launch), of which spares are kept ready.
 */
import { closeSync, openSync } from 'node:fs';
import { DrydockError, errorMessage } from '#common/errors';
import { pidfdSignal } from '#common/native/process';
import { inUserNamespace } from '#common/user-namespace';
import { launchError } from '../launcher-channel.ts';
import type { RuntimeOptions } from '../platform.ts';
import type {
  Jail,
  JailProcess,
  JailReportRow,
  JailSpec,
  KnownJail,
  NamespaceMode,
  Runtime,
} from '../runtime.ts';
import type { Cgroups } from './cgroup.ts';
import { openCgroups } from './cgroup-open.ts';
import { deviceRules, hostDevices } from './devices.ts';
import { type JailContext, LinuxJail } from './jail.ts';
import { Keeper } from './keeper.ts';
import { type Birthplace, type Launcher, LauncherProgram } from './launcher.ts';
import { effectiveSpec } from './plan.ts';
import { knownLimits, limitWarnings, reportSpec } from './report.ts';
import { seccompFilter } from './seccomp/filter.ts';
import { ownModules } from './security/apparmor.ts';
import {
  landlockOf,
  moduleOptions,
  moduleWarnings,
  programLabels,
  type SecurityModules,
  thisMachinesModules,
} from './security/modules.ts';
import { Spares } from './spares.ts';
import { Survivor } from './survivor.ts';
import { waitUntil } from './wait.ts';
import { openProcess } from './warden.ts';

const SWEEP_TIMEOUT_MS = 10_000;

/** See {@link Runtime}. */
export class LinuxRuntime implements Runtime {
  readonly name = 'linux';
  readonly #options: RuntimeOptions;
  readonly #jails = new Map<string, LinuxJail>();
  #ownPidNamespace = -1;
  #cgroups: Cgroups | undefined;
  #program: LauncherProgram | undefined;
  #spares: Spares | undefined;
  #modules: SecurityModules | undefined;

  constructor(options: RuntimeOptions) {
    this.#options = options;
  }

  get #liveRestore(): boolean {
    return this.#options.liveRestore === true;
  }

  async open(): Promise<void> {
    if (process.getuid?.() !== 0)
      throw new DrydockError(
        'ERR_NOT_ROOT',
        'Containers need namespaces, which need root: start the daemon with sudo.',
      );
    this.#requireCgroups();
    this.#ownPidNamespace = openSync('/proc/self/ns/pid', 'r');
    try {
      this.#program = new LauncherProgram(this.#ownPidNamespace, this.#options.instance);
    } catch (error) {
      throw new DrydockError(
        'ERR_KERNEL_TOO_OLD',
        `The kernel cannot make detached mounts (${errorMessage(error)}): Drydock needs Linux 5.12 or later, and CAP_SYS_ADMIN.`,
        { cause: error },
      );
    }
    this.#modules = ownModules();
    const { clock, log } = this.#options;
    this.#spares = new Spares(this.#program, clock, log, this.#liveRestore);
    this.#refill();
  }

  async create(wish: JailSpec): Promise<Jail> {
    const labels = programLabels(wish, this.#requireModules());
    const spec = effectiveSpec(wish, hostDevices, labels);
    const landlock = landlockOf(spec, this.#requireModules());
    const cgroups = this.#requireCgroups();
    if (this.#jails.has(spec.id)) throw new DrydockError('ERR_JAIL', `There is a jail ${spec.id} already.`);
    cgroups.place(spec.id, spec.cgroupParent);
    cgroups.create(spec.id, {}, spec.privileged ? undefined : deviceRules(spec.devices, spec.deviceRules));
    let launcher: Launcher | undefined;
    let keeper: Keeper | undefined;
    try {
      this.#checkSharing(spec);
      launcher = this.#launcherFor(spec.namespaces.pid);
      await cgroups.add(spec.id, launcher.pid);
      const maps = spec.userMaps;
      if (maps) keeper = await Keeper.start(spec.namespaces, maps, (pid) => cgroups.add(spec.id, pid));
      const filter = seccompFilter(spec);
      const user = maps && keeper && { pid: keeper.pid, maps };
      launcher.channel.send({
        type: 'prepare',
        spec,
        cgroups: cgroups.mounts(spec.id),
        filter,
        labels,
        ...(user && { user }),
        ...(landlock && { landlock }),
      });
      await launcher.channel.expect('unshared');
      const { terminalFd } = await launcher.channel.expect('ready');
      await keeper?.end();
      this.#checkJoined(spec);
      const terminal = terminalFd === undefined ? undefined : launcher.takeDescriptor(terminalFd);
      const jail = new LinuxJail(spec, launcher, this.#context(spec.id, { filter, labels, landlock }), {
        launcher,
        terminal,
      });
      this.#jails.set(spec.id, jail);
      return jail;
    } catch (error) {
      await launcher?.abandon();
      await keeper?.end();
      cgroups.remove(spec.id);
      this.#refill();
      throw launchError(error, 'failed to create task for container: OCI runtime create failed');
    }
  }

  #context(id: string, compiled: Pick<JailContext, 'filter' | 'labels' | 'landlock'>): JailContext {
    return {
      ...compiled,
      cgroups: this.#requireCgroups(),
      program: this.#requireProgram(),
      clock: this.#options.clock,
      log: this.#options.log,
      settled: () => this.#refill(),
      takeJoiner: () => this.#spares?.take('host'),
      forgotten: () => {
        this.#jails.delete(id);
        this.#refill();
      },
    };
  }

  async restore(wish: JailSpec, known: KnownJail): Promise<{ jail: Jail; process: JailProcess } | undefined> {
    if (!this.#liveRestore || !known.survival) return undefined;
    const main = Survivor.find(known.survival);
    if (!main) return undefined;
    const labels = programLabels(wish, this.#requireModules());
    const spec = effectiveSpec(wish, hostDevices, labels);
    // Of further processes: Landlock is for the main program only, which has it.
    const compiled = { filter: seccompFilter(spec), labels, landlock: undefined };
    this.#requireCgroups().place(spec.id, known.cgroupParent);
    const first = known.pid === main.pid ? main : Survivor.ofProcess(known);
    const jail = new LinuxJail(spec, first, this.#context(spec.id, compiled));
    this.#jails.set(spec.id, jail);
    this.#refill();
    return { jail, process: jail.takeUp(main) };
  }

  report(spec: JailSpec): JailReportRow[] {
    return reportSpec(spec, this.#requireCgroups(), this.#requireModules());
  }

  info(): ReturnType<Runtime['info']> {
    return {
      cgroupVersion: this.#requireCgroups().version,
      cgroupDriver: this.#requireCgroups().driver,
      securityOptions: [
        ...moduleOptions(this.#requireModules()),
        'name=seccomp,profile=builtin',
        ...(inUserNamespace ? ['name=rootless'] : []),
      ],
      warnings: [...limitWarnings(this.#requireCgroups()), ...moduleWarnings(this.#requireModules())],
      limits: knownLimits(this.#requireCgroups()),
      runtimes: {},
      defaultRuntime: this.name,
    };
  }

  async sweep(known: KnownJail[], going: ReadonlySet<string>): Promise<string[]> {
    const cgroups = this.#requireCgroups();
    const done: string[] = [];
    for (const { id, pid, startTime, cgroupParent } of known) {
      if (going.has(id)) continue;
      cgroups.place(id, cgroupParent);
      if (!killIfSame(pid, startTime)) continue;
      done.push(`killed process ${pid} of container ${id.slice(0, 12)}`);
    }
    const minders = [...this.#jails.values()].flatMap((jail) => jail.minders);
    this.#requireProgram().wardens.endStrays(new Set(minders));
    for (const id of cgroups.list()) {
      if (going.has(id)) continue;
      const left = cgroups.pids(id).length;
      await waitUntil(this.#options.clock, `what is left of ${id} to end`, SWEEP_TIMEOUT_MS, () => {
        cgroups.kill(id);
        return cgroups.remove(id);
      });
      done.push(`removed the cgroup of container ${id.slice(0, 12)} with ${left} processes`);
    }
    // An OCI runtime may have left no more than the parent.
    if (going.size === 0) cgroups.close();
    return done;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#jails.values()].map((jail) => jail.destroy()));
    await this.#spares?.close();
    this.#program?.close();
    this.#cgroups?.close();
    if (this.#ownPidNamespace >= 0) closeSync(this.#ownPidNamespace);
    this.#ownPidNamespace = -1;
  }

  /** A launcher in the wanted pid namespace: the spare, if that is a new one. */
  #launcherFor(mode: NamespaceMode): Launcher {
    const program = this.#requireProgram();
    const spare = mode === 'private' ? this.#spares?.take('new') : undefined;
    if (spare) return spare;
    const isMinded = this.#liveRestore;
    let birthplace: Birthplace = { kind: mode === 'host' ? 'host' : 'new' };
    if (typeof mode === 'object') birthplace = { kind: 'inside', pidfd: this.#jailOf(mode.pid).pidfd };
    return isMinded ? program.startMinded(birthplace) : program.start(birthplace);
  }

  #refill(): void {
    this.#spares?.refill(this.#jails.size);
  }

  /** The namespaces that a jail shares belong to the user namespace of the one that it shares them with. */
  #checkSharing(spec: JailSpec): void {
    const others = Object.values(spec.namespaces).flatMap((mode) =>
      typeof mode === 'object' ? [this.#jailOf(mode.pid)] : [],
    );
    if (others.every((other) => other.isMapped === (spec.userMaps !== undefined))) return;
    throw new DrydockError(
      'ERR_JAIL',
      'Containers that share a namespace must have the same user namespace mode: give both or none of them --userns=host.',
    );
  }

  /** Whether the jails whose namespaces a new one has joined are still the same: then their numbers were right too. */
  #checkJoined(spec: JailSpec): void {
    for (const mode of Object.values(spec.namespaces)) {
      if (typeof mode === 'object') pidfdSignal(this.#jailOf(mode.pid).pidfd, 0);
    }
  }

  #jailOf(pid: number): LinuxJail {
    for (const jail of this.#jails.values()) if (jail.pid === pid) return jail;
    throw new DrydockError(
      'ERR_NOT_RUNNING',
      `Process ${pid}, whose namespace is to be joined, is not that of a running container.`,
    );
  }

  /** Opened when first asked for: report() may come before open(). */
  #requireCgroups(): Cgroups {
    this.#cgroups ??= openCgroups(this.#options.instance, this.#options.clock);
    return this.#cgroups;
  }

  #requireModules(): SecurityModules {
    this.#modules ??= thisMachinesModules();
    return this.#modules;
  }

  #requireProgram(): LauncherProgram {
    if (!this.#program) throw new Error('the runtime is not open');
    return this.#program;
  }
}

/** Kills a process that has the number and the start time of one we knew. */
function killIfSame(pid: number, startTime: string): boolean {
  const pidfd = openProcess({ pid, startTime });
  if (pidfd === undefined) return false;
  try {
    pidfdSignal(pidfd, 9);
    return true;
  } catch {
    return false;
  } finally {
    closeSync(pidfd);
  }
}
