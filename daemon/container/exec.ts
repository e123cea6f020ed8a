/**
 * Further processes in running containers. An exec instance is made first and started once; it is remembered for a
 * while after its end, since clients ask for its exit code then.
 */
import type { Clock } from '#common/clock';
import { DrydockError, errorCode } from '#common/errors';
import type { Rng } from '#common/rng';
import { EXEC_BEGIN_WAIT_MS, EXEC_KEPT_MS, EXEC_OUTPUT_GRACE_MS } from '../limits.ts';
import type { JailProcess } from '../runtime/runtime.ts';
import { type AttachRequest, attach } from './attach.ts';
import type { Container } from './container.ts';
import { ProcessIo } from './io.ts';
import { permit } from './lifecycle.ts';
import { newId } from './names.ts';
import { execProcess } from './spec.ts';
import type { Supervisor } from './supervisor.ts';

/** The body of POST /containers/ID/exec. */
export interface ExecRequest {
  AttachStdin?: boolean;
  AttachStdout?: boolean;
  AttachStderr?: boolean;
  Tty?: boolean;
  DetachKeys?: string;
  /** At least one word: the route sees to it. */
  Cmd: string[];
  Env?: string[];
  User?: string;
  WorkingDir?: string;
  Privileged?: boolean;
  ConsoleSize?: [number, number];
}

/** One exec instance. */
export interface ExecInstance {
  readonly id: string;
  readonly container: Container;
  readonly request: ExecRequest;
  readonly io: ProcessIo;
  started: boolean;
  running: boolean;
  exitCode: number | null;
  process: JailProcess | undefined;
  /** Resolves when the process runs, or will never run. */
  readonly begun: Promise<void>;
  begin(): void;
}

/** A client of an exec start; undefined input and output means detached. */
export type ExecClient = Omit<AttachRequest, 'terminal' | 'closeStdin'>;

/** Exec instances of all containers. */
export class ExecService {
  readonly #supervisor: Supervisor;
  readonly #clock: Clock;
  readonly #rng: Rng;
  readonly #instances = new Map<string, ExecInstance>();

  constructor(supervisor: Supervisor, clock: Clock, rng: Rng) {
    this.#supervisor = supervisor;
    this.#clock = clock;
    this.#rng = rng;
  }

  /** Makes an instance. @throws ERR_CONFLICT unless the container runs */
  create(container: Container, request: ExecRequest): ExecInstance {
    permit('exec', container.record.state.status, container.id, container.name);
    let begin = (): void => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const instance: ExecInstance = {
      id: newId(this.#rng),
      container,
      request,
      io: new ProcessIo(),
      started: false,
      running: false,
      exitCode: null,
      process: undefined,
      begun,
      begin,
    };
    this.#instances.set(instance.id, instance);
    this.#event(instance, `exec_create: ${request.Cmd.join(' ')}`);
    return instance;
  }

  #event(instance: ExecInstance, action: string, attributes: Record<string, string> = {}): void {
    this.#supervisor.event(instance.container, action, { execID: instance.id, ...attributes });
  }

  /** @throws ERR_EXEC_INSTANCE_NOT_FOUND */
  get(id: string): ExecInstance {
    const instance = this.#instances.get(id);
    if (!instance) throw new DrydockError('ERR_EXEC_INSTANCE_NOT_FOUND', `No such exec instance: ${id}`);
    return instance;
  }

  /** Ids of the instances of a container that run, or null as in inspect when there are none. */
  idsOf(container: Container): string[] | null {
    const ids = [...this.#instances.values()]
      .filter((i) => i.container === container && i.running)
      .map((i) => i.id);
    return ids.length > 0 ? ids : null;
  }

  /** Says whether an instance can be started now. Called before its client's connection is hijacked. */
  checkStart(instance: ExecInstance): void {
    this.#supervisor.assertWorking();
    if (instance.running)
      throw new DrydockError('ERR_CONFLICT', `exec command ${instance.id} is already running`);
    if (instance.started)
      throw new DrydockError('ERR_CONFLICT', `exec command ${instance.id} has already run`);
    permit('exec', instance.container.record.state.status, instance.container.id, instance.container.name);
  }

  /**
   * Runs an instance. With a client it resolves when that is done with it, else as soon as the process runs.
   * @throws DrydockError when the process can't be started
   */
  async start(
    instance: ExecInstance,
    client: ExecClient | undefined,
    consoleSize: [number, number] | undefined,
  ): Promise<void> {
    this.checkStart(instance);
    const { request, container } = instance;
    instance.started = true;
    const attached =
      client &&
      attach(instance.io, {
        ...client,
        terminal: request.Tty === true,
        closeStdin: true,
      });
    try {
      await this.#run(instance, consoleSize);
    } catch (error) {
      instance.exitCode = errorCode(error) === 'ERR_EXEC_NOT_FOUND' ? 127 : 126;
      instance.begin();
      this.#forgetLater(instance);
      throw error;
    }
    if ((await attached) === 'detached')
      this.#supervisor.event(container, 'exec_detach', { execID: instance.id });
  }

  async #run(instance: ExecInstance, consoleSize: [number, number] | undefined): Promise<void> {
    const { request, container } = instance;
    const process = await container.jail!.exec(
      execProcess(container.record, {
        args: request.Cmd,
        env: request.Env ?? [],
        cwd: request.WorkingDir ?? '',
        user: request.User ?? '',
        terminal: request.Tty === true,
        stdin: request.AttachStdin === true,
        privileged: request.Privileged === true,
        consoleSize: consoleSize ?? request.ConsoleSize,
      }),
    );
    instance.process = process;
    instance.running = true;
    instance.begin();
    this.#event(instance, `exec_start: ${request.Cmd.join(' ')}`);
    const drained = instance.io.connect(process);
    void this.#finish(instance, process, drained);
  }

  /**
   * Sets the size of an instance's terminal. A client asks for it right after start, so it may have to wait for the process.
   * @throws ERR_CONFLICT when that does not run, or not in time
   */
  async resize(instance: ExecInstance, rows: number, columns: number): Promise<void> {
    let timer = { cancel: (): void => {} };
    const timeout = new Promise<void>((resolve) => {
      timer = this.#clock.arm(this.#clock.now() + EXEC_BEGIN_WAIT_MS, resolve);
    });
    await Promise.race([instance.begun, timeout]);
    timer.cancel();
    if (!instance.process)
      throw new DrydockError('ERR_CONFLICT', `exec process is not started: ${instance.id}`);
    if (rows > 0 && columns > 0) instance.process.resize(rows, columns);
  }

  async #finish(instance: ExecInstance, process: JailProcess, drained: Promise<void>): Promise<void> {
    const exit = await process.exited;
    // Known before the client's stream ends: the CLI asks for the exit code right after.
    instance.exitCode = exit.code;
    instance.running = false;
    const timer = this.#clock.arm(this.#clock.now() + EXEC_OUTPUT_GRACE_MS, () => instance.io.abandon());
    await drained;
    timer.cancel();
    instance.process = undefined;
    this.#event(instance, 'exec_die', { exitCode: String(exit.code) });
    this.#forgetLater(instance);
  }

  #forgetLater(instance: ExecInstance): void {
    this.#clock.arm(this.#clock.now() + EXEC_KEPT_MS, () => this.#instances.delete(instance.id));
  }
}
