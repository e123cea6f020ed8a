/**
 * Starts containers, watches them, stops them. A start acquires in order: root file system, mounts, jail, network,
 * process; the end of a run frees in reverse, and a start that fails frees what it had acquired, so that a container
 * that does not run holds nothing of the host.
 */
import type { Clock } from '#common/clock';
import { DrydockError, errorMessage } from '#common/errors';
import type { UserMaps } from '#common/id-map';
import type { Log } from '#common/log';
import type { EventBus } from '../events/bus.ts';
import type { RootStore } from '../image/store.ts';
import { EXEC_OUTPUT_GRACE_MS, KILL_WAIT_MS, STOP_TIMEOUT_S } from '../limits.ts';
import type { MountService } from '../mounts/service.ts';
import type { NetworkService } from '../network/service.ts';
import type { ExitStatus, Jail, JailProcess, KnownJail, Runtime } from '../runtime/runtime.ts';
import { Stamps } from '../stamps.ts';
import type { Container } from './container.ts';
import type { ContainerDefaults } from './create.ts';
import { devicesOf } from './devices.ts';
import { HealthMonitor, newHealth, probeArgs } from './health.ts';
import { isAlive, permit } from './lifecycle.ts';
import { ipcDonor, namespacePids } from './namespaces.ts';
import type { Neighbours } from './neighbours.ts';
import { runProbe } from './probe.ts';
import { signalNumber } from './signals.ts';
import { jailSpec, knownJail, NO_PLACES, type Places } from './spec.ts';
import { startError, startExitCode } from './start-failure.ts';
import { type ContainerRecord, ZERO_TIME } from './types.ts';
import { checkDeviceRequests } from './validate.ts';

/** What the supervisor works with. */
export interface SupervisorDeps {
  runtime: Runtime;
  roots: RootStore;
  mounts: MountService;
  networks: NetworkService;
  /** How the users of containers are those of the machine, when they are others. */
  userMaps: UserMaps | undefined;
  events: EventBus;
  clock: Clock;
  log: Log;
  neighbours: Neighbours;
  /** What containers get that don't say. */
  defaults: Pick<ContainerDefaults, 'seccomp'>;
  /** Containers go on while no daemon runs. */
  liveRestore: boolean;
  save(container: Container): Promise<void>;
  /** Finds another container that a mode such as `container:NAME` names. */
  find(reference: string): Container;
  /** Removes a container whose run is over (--rm). */
  removeAfterExit(container: Container): Promise<void>;
}

const SIGKILL = 9;

/** Runs containers. */
export class Supervisor {
  /** Probes of all containers since the start. */
  readonly healthChecks = { total: 0, failed: 0 };
  readonly #deps: SupervisorDeps;
  readonly #stamps: Stamps;
  readonly #lookup = (reference: string): ContainerRecord => this.#deps.find(reference).record;
  #refusing = false;

  constructor(deps: SupervisorDeps) {
    this.#deps = deps;
    this.#stamps = new Stamps(deps.clock);
  }

  /** From now on nothing is made or started: the daemon ends. */
  refuseWork(): void {
    this.#refusing = true;
  }

  /** @throws ERR_SHUTTING_DOWN when the daemon ends */
  assertWorking(): void {
    if (this.#refusing)
      throw new DrydockError(
        'ERR_SHUTTING_DOWN',
        'the daemon is shutting down: start it again, then try once more',
      );
  }

  /** Publishes a container event with the attributes that docker's have. */
  event(container: Container, action: string, attributes: Record<string, string> = {}): void {
    const { config, name } = container.record;
    this.#deps.events.emit('container', action, container.id, {
      image: config.Image ?? '',
      name,
      ...config.Labels,
      ...attributes,
    });
  }

  /** Starts a container. @throws DrydockError, after everything was taken back */
  start(container: Container): Promise<void> {
    return container.turns.take(async () => {
      this.assertWorking();
      permit('start', container.record.state.status, container.id, container.name);
      container.restartTimer?.cancel();
      container.restartTimer = undefined;
      container.restarts.reset();
      container.record.state.stoppedByUser = false;
      container.stopping = false;
      container.record.state.restartCount = 0;
      await this.#startNow(container);
    });
  }

  async #startNow(container: Container): Promise<void> {
    const undo: (() => Promise<unknown>)[] = [];
    try {
      const process = await this.#acquire(container, undo);
      this.#running(container, process, undo);
      await this.#deps.save(container);
    } catch (error) {
      await this.#release(container, undo);
      await this.#startFailed(container, error);
      throw startError(error);
    }
    this.event(container, 'start');
    await this.#deps.neighbours.changed(container);
  }

  /** Acquires everything; each step leaves in `undo` how it is taken back. */
  async #acquire(container: Container, undo: (() => Promise<unknown>)[]): Promise<JailProcess> {
    const { runtime, roots, mounts, networks, neighbours } = this.#deps;
    const { record, id } = container;
    checkDeviceRequests(record.hostConfig);
    undo.push(() => roots.unmount(id));
    const rootPath = await roots.mount(id);
    undo.push(() => mounts.stop(id));
    const places: Places = {
      rootPath,
      etc: neighbours.paths(container),
      mounts: await mounts.start(record, ipcDonor(record, this.#lookup)),
      pids: namespacePids(record, this.#lookup),
      linkEnvironment: neighbours.environment(container),
      ...this.#constants(),
    };
    await neighbours.prepare(container);
    const spec = jailSpec(record, places);
    const jail = await runtime.create({ ...spec, devices: devicesOf(spec.devices) });
    undo.push(() => jail.destroy());
    container.jail = jail;
    undo.push(() => networks.stop(record));
    await networks.start(record, jail.pid);
    await neighbours.write(container);
    return jail.start();
  }

  /** The process runs: state, streams, and what happens at its end. */
  #running(container: Container, process: JailProcess, undo: (() => Promise<unknown>)[]): void {
    const { state } = container.record;
    Object.assign(state, {
      status: 'running',
      pid: container.jail!.pid,
      pidStartTime: container.jail!.startTime,
      exitCode: 0,
      error: '',
      oomKilled: false,
      startedAt: this.#stamps.text(),
      finishedAt: state.finishedAt,
      survival: process.survival,
    });
    container.startedMs = this.#deps.clock.now();
    delete state.health;
    this.#watchHealth(container);
    this.#follow(container, process, undo);
  }

  /**
   * Takes up a container that goes on from an earlier daemon; its networks come later, by {@link reconnect}.
   * @returns false when it is over, and nobody knows how
   */
  async restore(container: Container): Promise<boolean> {
    const { roots, mounts, networks } = this.#deps;
    const { record, id } = container;
    const known = knownJail(record);
    if (!this.#deps.liveRestore || !known.survival) return false;
    const taken = await this.#takeUp(container, known).catch((error: unknown) => {
      this.#deps.log.warn(
        { container: id, error: errorMessage(error) },
        'a container can not be taken up again',
      );
      return undefined;
    });
    if (!taken) return false;
    container.jail = taken.jail;
    await mounts.restore(record);
    container.startedMs =
      this.#deps.clock.now() - (this.#deps.clock.wallMs() - Date.parse(record.state.startedAt));
    if (record.state.status === 'running') this.#watchHealth(container);
    this.#follow(container, taken.process, [
      () => roots.unmount(id),
      () => mounts.stop(id),
      () => taken.jail.destroy(),
      () => networks.stop(record),
    ]);
    return true;
  }

  async #takeUp(
    { record, id }: Container,
    known: KnownJail,
  ): Promise<{ jail: Jail; process: JailProcess } | undefined> {
    const { runtime, roots } = this.#deps;
    const places = { ...NO_PLACES, ...this.#constants(), rootPath: await roots.mount(id) };
    return runtime.restore?.(jailSpec(record, places), known);
  }

  /** Puts a container that goes on onto its networks again. */
  async reconnect(container: Container): Promise<void> {
    await container.turns.take(async () => {
      const { record, jail } = container;
      if (!jail || !isAlive(record.state.status)) return;
      const { attached } = record.state;
      if (attached) await this.#deps.networks.restore(record, jail.pid, attached);
      await this.#deps.neighbours.write(container);
    });
  }

  /** Lets a container go on while the daemon ends. @returns false where it can't */
  async leave(container: Container): Promise<boolean> {
    const { jail, process, record } = container;
    if (!this.#deps.liveRestore || !jail?.leave || !process?.survival || !isAlive(record.state.status))
      return false;
    container.health?.stop();
    jail.leave();
    // What was read so far is in the log before the daemon ends.
    container.io.end();
    await container.log?.flush();
    await this.#deps.save(container);
    return true;
  }

  /** What all jails have in common. */
  #constants(): Pick<Places, 'userMaps' | 'seccomp'> {
    return { userMaps: this.#deps.userMaps, seccomp: this.#deps.defaults.seccomp };
  }

  /** Streams of a process, and what happens at its end. */
  #follow(container: Container, process: JailProcess, undo: (() => Promise<unknown>)[]): void {
    container.process = process;
    if (container.log) container.io.add(container.log.begin());
    const drained = container.io.connect(process);
    container.ended = process.exited.then((exit) => this.#exited(container, exit, drained, undo));
    container.ended.catch((error) =>
      this.#deps.log.error({ container: container.id, error }, 'the end of a container could not be handled'),
    );
  }

  /** Starts a run's healthcheck, or goes on with it after a pause. */
  #watchHealth(container: Container): void {
    const { config, state } = container.record;
    const args = probeArgs(config.Healthcheck, config.Shell);
    if (!args) return;
    state.health ??= newHealth();
    container.health = new HealthMonitor(config.Healthcheck!, state.health, {
      clock: this.#deps.clock,
      stamp: () => this.#stamps.text(),
      probe: async (signal) => {
        const result = await runProbe(container, args, signal);
        this.healthChecks.total++;
        if (result.exitCode !== 0) this.healthChecks.failed++;
        return result;
      },
      changed: (health, before) => {
        state.health = health;
        if (health.Status === before) return;
        this.event(container, `health_status: ${health.Status}`);
        void this.#deps.save(container);
      },
    });
  }

  async #exited(
    container: Container,
    exit: ExitStatus,
    drained: Promise<void>,
    undo: (() => Promise<unknown>)[],
  ): Promise<void> {
    await this.#outputEnds(container, drained);
    await container.turns.take(async () => {
      await this.#noteEnd(container, exit);
      await this.#release(container, undo);
      await this.#finished(container, exit);
    });
  }

  /** What only the minders of a container know that can outlive the daemon is on disk before they are dismissed. */
  async #noteEnd(container: Container, exit: ExitStatus): Promise<void> {
    const { state } = container.record;
    if (!state.survival) return;
    delete state.survival;
    delete state.attached;
    Object.assign(state, { exitCode: exit.code, oomKilled: exit.oomKilled, hasEnded: true });
    await this.#deps.save(container);
  }

  /** What was written before the end is delivered; a client that no longer reads can't hold the container's end back for ever. */
  async #outputEnds(container: Container, drained: Promise<void>): Promise<void> {
    const { clock } = this.#deps;
    const timer = clock.arm(clock.now() + EXEC_OUTPUT_GRACE_MS, () => container.io.abandon());
    await drained;
    timer.cancel();
  }

  async #finished(container: Container, exit: ExitStatus): Promise<void> {
    const { clock } = this.#deps;
    const { state, hostConfig } = container.record;
    const ranMs = clock.now() - container.startedMs;
    Object.assign(state, {
      pid: 0,
      pidStartTime: '',
      exitCode: exit.code,
      oomKilled: exit.oomKilled,
      finishedAt: this.#stamps.text(),
    });
    delete state.survival;
    delete state.attached;
    await this.#deps.neighbours
      .changed(container)
      .catch((error) =>
        this.#deps.log.warn({ container: container.id, error }, 'hosts files could not be written'),
      );
    if (exit.oomKilled) this.event(container, 'oom');
    const delayMs = container.removed
      ? undefined
      : container.restarts.after(hostConfig.RestartPolicy, {
          exitCode: exit.code,
          ranMs,
          stoppedByUser:
            container.stopping ||
            (state.stoppedByUser && hostConfig.RestartPolicy?.Name === 'unless-stopped'),
        });
    state.status = delayMs === undefined ? 'exited' : 'restarting';
    await this.#deps.save(container);
    this.event(container, 'die', {
      exitCode: String(exit.code),
      execDuration: String(Math.floor(ranMs / 1000)),
    });
    container.notifyExit();
    if (delayMs !== undefined)
      container.restartTimer = clock.arm(clock.now() + delayMs, () => void this.#restartByPolicy(container));
    else if (hostConfig.AutoRemove && !container.restartAsked) this.#removeSoon(container);
  }

  async #restartByPolicy(container: Container): Promise<void> {
    await container.turns.take(async () => {
      if (container.record.state.status !== 'restarting' || this.#refusing) return;
      container.restartTimer = undefined;
      container.record.state.restartCount++;
      await this.#startNow(container).catch((error) =>
        this.#deps.log.warn({ container: container.id, error }, 'container could not be restarted'),
      );
    });
  }

  /** Frees what a run held, in reverse. A step that fails is logged and the others still go on. */
  async #release(container: Container, undo: (() => Promise<unknown>)[]): Promise<void> {
    container.health?.stop();
    for (const step of undo.splice(0).reverse())
      await step().catch((error) =>
        this.#deps.log.error(
          { container: container.id, error },
          'a resource of a container could not be freed',
        ),
      );
    container.jail = undefined;
    container.process = undefined;
    container.health = undefined;
  }

  async #startFailed(container: Container, error: unknown): Promise<void> {
    const { state, hostConfig } = container.record;
    const wasUp = state.status;
    Object.assign(state, {
      pid: 0,
      pidStartTime: '',
      exitCode: startExitCode(error),
      error: errorMessage(error),
    });
    state.status = wasUp === 'created' ? 'created' : 'exited';
    if (state.startedAt !== ZERO_TIME) state.finishedAt = this.#stamps.text();
    container.io.end();
    await this.#deps.save(container);
    container.notifyExit();
    if (hostConfig.AutoRemove) this.#removeSoon(container);
  }

  /** Not awaited: removing takes the container's turn, which is still held. */
  #removeSoon(container: Container): void {
    this.#deps
      .removeAfterExit(container)
      .catch((error) =>
        this.#deps.log.warn({ container: container.id, error }, 'container could not be removed'),
      );
  }

  /** Sends a signal, with its event. Frozen processes are let go on when they should die. */
  async kill(container: Container, signal: string): Promise<void> {
    const number = signalNumber(signal);
    const { state } = container.record;
    permit('kill', state.status, container.id, container.name);
    if (state.status === 'restarting') return this.#cancelRestart(container);
    // As in moby, any signal counts as a user's doing for `unless-stopped`, but only one that asks for the end keeps
    // `always` from starting it again.
    state.stoppedByUser = true;
    const final =
      number === SIGKILL || number === signalNumber(container.record.config.StopSignal ?? 'SIGTERM');
    container.stopping ||= final;
    container.process?.kill(number);
    this.event(container, 'kill', { signal: String(number) });
    if (state.status === 'paused' && final) await this.#resume(container);
    if (number === SIGKILL) await container.endedWithin(this.#deps.clock, KILL_WAIT_MS);
  }

  async #resume(container: Container): Promise<void> {
    await container.jail?.resume();
    if (container.record.state.status !== 'paused') return;
    container.record.state.status = 'running';
    this.#watchHealth(container);
  }

  /** A container that waits to be restarted is stopped by forgetting the restart. */
  async #cancelRestart(container: Container): Promise<void> {
    await container.turns.take(async () => {
      if (container.record.state.status !== 'restarting') return;
      container.restartTimer?.cancel();
      container.restartTimer = undefined;
      container.record.state.status = 'exited';
      container.record.state.stoppedByUser = true;
      await this.#deps.save(container);
      container.notifyExit();
    });
  }

  /**
   * Stops a container: its stop signal, then after the timeout SIGKILL.
   * @param timeoutS seconds; negative waits for ever, undefined takes the container's own
   */
  async stop(
    container: Container,
    options: { signal?: string; timeoutS?: number | undefined } = {},
  ): Promise<void> {
    const { state, config } = container.record;
    permit('stop', state.status, container.id, container.name);
    const signal = options.signal || config.StopSignal || 'SIGTERM';
    const number = signalNumber(signal);
    if (state.status === 'restarting') return this.#cancelRestart(container);
    state.stoppedByUser = true;
    container.stopping = true;
    const { ended } = container;
    container.process?.kill(number);
    this.event(container, 'kill', { signal: String(number) });
    if (state.status === 'paused') await this.#resume(container);
    const timeoutS = options.timeoutS ?? config.StopTimeout ?? STOP_TIMEOUT_S;
    if (timeoutS < 0) await ended;
    else if (!(await container.endedWithin(this.#deps.clock, timeoutS * 1000))) {
      container.process?.kill(SIGKILL);
      this.event(container, 'kill', { signal: String(SIGKILL) });
      if (!(await container.endedWithin(this.#deps.clock, KILL_WAIT_MS)))
        throw new DrydockError(
          'ERR_STUCK',
          `cannot stop container: ${container.id}: tried to kill container, but did not receive an exit event`,
        );
    }
    this.event(container, 'stop');
  }

  async restart(
    container: Container,
    options: { signal?: string; timeoutS?: number | undefined },
  ): Promise<void> {
    container.restartAsked = true;
    try {
      if (container.up) await this.stop(container, options);
      await this.start(container);
    } finally {
      container.restartAsked = false;
    }
    this.event(container, 'restart');
  }

  async pause(container: Container): Promise<void> {
    await container.turns.take(async () => {
      const { state } = container.record;
      permit('pause', state.status, container.id, container.name);
      container.health?.stop();
      await container.jail!.pause();
      state.status = 'paused';
      await this.#deps.save(container);
    });
    this.event(container, 'pause');
  }

  async unpause(container: Container): Promise<void> {
    await container.turns.take(async () => {
      permit('unpause', container.record.state.status, container.id, container.name);
      await this.#resume(container);
      await this.#deps.save(container);
    });
    this.event(container, 'unpause');
  }
}
