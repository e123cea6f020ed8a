/**
 * Containers by any OCI runtime, as dockerd's `runtimes`: runc, crun, runsc, youki.
 *
 * The runtime's `run` stays in the foreground as the container's parent and passes its exit code on, which is what a
 * shim does for dockerd. The network namespace is made here first, by a launcher that only holds it, so that the
 * network can be attached before anything of the image runs. Control groups have the same names as with our own
 * runtime, so that pause, statistics and update are the same code.
 */
import { closeSync, openSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DrydockError, errorMessage } from '#common/errors';
import type { ProgramLabels } from '../../launch/protocol.ts';
import { findProgram } from '../../platform.ts';
import type { Cgroups } from '../linux/cgroup.ts';
import { openCgroups } from '../linux/cgroup-open.ts';
import { hostDevices } from '../linux/devices.ts';
import { LauncherProgram } from '../linux/launcher.ts';
import { effectiveSpec } from '../linux/plan.ts';
import { knownLimits, limitWarnings, reportSpec } from '../linux/report.ts';
import { compileContext, profileOf } from '../linux/seccomp/filter.ts';
import { ownModules } from '../linux/security/apparmor.ts';
import {
  moduleOptions,
  moduleWarnings,
  programLabels,
  type SecurityModules,
} from '../linux/security/modules.ts';
import { Survivor } from '../linux/survivor.ts';
import { WardenPrograms } from '../linux/warden.ts';
import type { OciCommand, RuntimeOptions } from '../platform.ts';
import type { Jail, JailProcess, JailReportRow, JailSpec, KnownJail, Runtime } from '../runtime.ts';
import { ociConfig, stringify } from './bundle.ts';
import { type Command, ociError, requireRuntime, runToEnd } from './oci-command.ts';
import { identityIn, type OciContext, OciJail } from './oci-jail.ts';

/** See {@link Runtime}. */
export class OciRuntime implements Runtime {
  readonly name: string;
  readonly #command: Command;
  readonly #options: RuntimeOptions;
  readonly #jails = new Map<string, OciJail>();
  readonly #wardens: WardenPrograms;
  #cgroups: Cgroups | undefined;
  #program: LauncherProgram | undefined;
  #ownPidNamespace = -1;
  #modules: SecurityModules | undefined;

  constructor(oci: OciCommand, options: RuntimeOptions) {
    this.name = oci.name;
    // A warden looks for nothing in PATH.
    const path = oci.command.includes('/') ? oci.command : (findProgram(oci.command) ?? oci.command);
    this.#command = [path, ...(oci.args ?? [])];
    this.#options = options;
    this.#wardens = new WardenPrograms(`${options.instance}/${oci.name}`);
  }

  async open(): Promise<void> {
    await requireRuntime(this.#command);
    this.#ownPidNamespace = openSync('/proc/self/ns/pid', 'r');
    this.#program = new LauncherProgram(this.#ownPidNamespace, this.#options.instance);
    await mkdir(this.#stateRoot, { recursive: true, mode: 0o700 });
  }

  async create(wish: JailSpec): Promise<Jail> {
    refuseUserMaps(wish);
    const labels = programLabels(wish, this.#requireModules());
    const spec = effectiveSpec(wish, hostDevices);
    const cgroups = this.#requireCgroups();
    cgroups.place(spec.id, spec.cgroupParent);
    const holder = this.#requireProgram().start({ kind: 'host' });
    try {
      holder.channel.send({
        type: 'hold',
        namespaces: { ...HOST_NAMESPACES, network: spec.namespaces.network },
      });
      await holder.channel.expect('unshared');
      const seccomp = profileOf(spec);
      const config = ociConfig(spec, {
        identity: identityIn(spec.rootPath, spec.process),
        labels,
        networkPath: `/proc/${holder.pid}/ns/net`,
        cgroupsPath: cgroups.driver === 'none' ? undefined : cgroups.pathOf(spec.id),
        seccomp: seccomp && { profile: seccomp, context: compileContext(spec) },
      });
      const bundle = this.#bundle(spec.id);
      await mkdir(bundle, { recursive: true, mode: 0o700 });
      await writeFile(join(bundle, 'config.json'), stringify(config));
      const jail = new OciJail(spec, holder, bundle, this.#contextOf(spec.id, labels));
      this.#jails.set(spec.id, jail);
      return jail;
    } catch (error) {
      await holder.abandon();
      throw ociError(errorMessage(error), 'failed to create task for container');
    }
  }

  async restore(wish: JailSpec, known: KnownJail): Promise<{ jail: Jail; process: JailProcess } | undefined> {
    const main = known.survival && Survivor.find(known.survival);
    if (!main) return undefined;
    const labels = programLabels(wish, this.#requireModules());
    const spec = effectiveSpec(wish, hostDevices);
    this.#requireCgroups().place(spec.id, known.cgroupParent);
    const jail = new OciJail(spec, undefined, this.#bundle(spec.id), this.#contextOf(spec.id, labels));
    this.#jails.set(spec.id, jail);
    return { jail, process: jail.takeUp(main) };
  }

  #contextOf(id: string, labels: ProgramLabels): OciContext {
    return {
      labels,
      command: this.#command,
      stateRoot: this.#state,
      cgroups: this.#requireCgroups(),
      clock: this.#options.clock,
      log: this.#options.log,
      wardens: this.#options.liveRestore ? this.#wardens : undefined,
      forgotten: () => void this.#jails.delete(id),
    };
  }

  report(spec: JailSpec): JailReportRow[] {
    refuseUserMaps(spec);
    const rows = reportSpec(spec, this.#requireCgroups(), this.#requireModules());
    return rows.map((row) => {
      if (row.feature === 'Landlock')
        return { feature: row.feature, asked: 'none', got: 'none', how: 'OCI runtimes know nothing of it' };
      if (row.feature === 'init')
        return { ...row, got: 'none', how: 'an OCI runtime has no init of its own' };
      return { ...row, how: `${row.how} (by ${this.name})` };
    });
  }

  info(): ReturnType<Runtime['info']> {
    return {
      cgroupVersion: this.#requireCgroups().version,
      cgroupDriver: 'cgroupfs',
      securityOptions: [...moduleOptions(this.#requireModules()), 'name=seccomp,profile=builtin'],
      warnings: [...limitWarnings(this.#requireCgroups()), ...moduleWarnings(this.#requireModules())],
      limits: knownLimits(this.#requireCgroups()),
      runtimes: {},
      defaultRuntime: this.name,
    };
  }

  async sweep(): Promise<string[]> {
    const done: string[] = [];
    this.#wardens.endStrays(new Set([...this.#jails.values()].flatMap((jail) => jail.minders)));
    for (const id of await this.#known()) {
      if (this.#jails.has(id)) continue;
      const { code } = await runToEnd(this.#command, ['--root', this.#state, 'delete', '--force', id]);
      if (code === 0) done.push(`deleted what ${this.name} had of container ${id.slice(0, 12)}`);
      await rm(this.#bundle(id), { recursive: true, force: true });
    }
    return done;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#jails.values()].map((jail) => jail.destroy()));
    this.#program?.close();
    this.#wardens.close();
    this.#cgroups?.close();
    if (this.#ownPidNamespace >= 0) closeSync(this.#ownPidNamespace);
    this.#ownPidNamespace = -1;
    // What goes on needs it.
    if ((await this.#known()).length === 0) await rm(this.#stateRoot, { recursive: true, force: true });
  }

  /** Containers of which the runtime has notes. */
  #known(): Promise<string[]> {
    return readdir(this.#state).catch(() => []);
  }

  get #state(): string {
    return join(this.#stateRoot, 'state');
  }

  #bundle(id: string): string {
    return join(this.#stateRoot, 'bundles', id);
  }

  get #stateRoot(): string {
    return join(this.#options.execRoot, `oci-${this.name}`);
  }

  /** Opened when first asked for: report() comes before open(). */
  #requireCgroups(): Cgroups {
    this.#cgroups ??= openCgroups(this.#options.instance, this.#options.clock);
    return this.#cgroups;
  }

  #requireModules(): SecurityModules {
    this.#modules ??= { ...ownModules(), landlock: 0 };
    return this.#modules;
  }

  #requireProgram(): LauncherProgram {
    if (!this.#program) throw new Error('the runtime is not open');
    return this.#program;
  }
}

/** The namespaces are made here, before the runtime starts, and belong to no user namespace of its making. */
function refuseUserMaps({ userMaps }: JailSpec): void {
  if (!userMaps) return;
  throw new DrydockError(
    'ERR_JAIL_PROMISE',
    'userns-remap is for the runtime drydock: give --userns=host with another --runtime',
  );
}

const HOST_NAMESPACES: JailSpec['namespaces'] = {
  network: 'host',
  pid: 'host',
  ipc: 'host',
  uts: 'host',
  cgroup: 'host',
};
