/**
 * The life of a container as a pure machine: created, running, paused, restarting, exited, dead. It knows nothing of
 * processes; the service tells it what happened and asks what may happen next. Texts and statuses are dockerd's.
 */
import { DrydockError } from '#common/errors';
import type { ContainerState, HostConfig, Status } from './types.ts';
import { ZERO_TIME } from './types.ts';

/** A state before the first start. */
export function newState(): ContainerState {
  return {
    status: 'created',
    pid: 0,
    pidStartTime: '',
    exitCode: 0,
    error: '',
    oomKilled: false,
    startedAt: ZERO_TIME,
    finishedAt: ZERO_TIME,
    restartCount: 0,
    stoppedByUser: false,
  };
}

/** What can be asked of a container. */
export type Operation =
  | 'start'
  | 'stop'
  | 'kill'
  | 'pause'
  | 'unpause'
  | 'exec'
  | 'attach'
  | 'top'
  | 'update'
  | 'remove';

const ALIVE: ReadonlySet<Status> = new Set(['running', 'paused']);

/** Whether processes of the container exist. */
export function isAlive(status: Status): boolean {
  return ALIVE.has(status);
}

/**
 * Says whether an operation is allowed now.
 * @throws ERR_NOT_MODIFIED when there is nothing to do, ERR_CONFLICT with dockerd's text when it is not allowed
 */
export function permit(operation: Operation, status: Status, id: string, name: string): void {
  const refusal = refusals[operation](status, id, name);
  if (refusal === undefined) return;
  if (refusal === '') throw new DrydockError('ERR_NOT_MODIFIED', 'container already in that state');
  throw new DrydockError('ERR_CONFLICT', refusal);
}

/** Undefined: allowed; '': nothing to do; else why not. */
const refusals: Record<Operation, (status: Status, id: string, name: string) => string | undefined> = {
  start: (status) => {
    if (status === 'running') return '';
    if (status === 'paused') return 'cannot start a paused container, try unpause instead';
    if (status === 'removing' || status === 'dead')
      return 'container is marked for removal and cannot be started';
    return undefined;
  },
  stop: (status) => (ALIVE.has(status) || status === 'restarting' ? undefined : ''),
  kill: (status, id) =>
    ALIVE.has(status) || status === 'restarting' ? undefined : `container ${id} is not running`,
  pause: (status, id) =>
    status === 'running'
      ? undefined
      : status === 'paused'
        ? `container ${id} is already paused`
        : status === 'restarting'
          ? `container ${id} is restarting, wait until the container is running`
          : `container ${id} is not running`,
  unpause: (status, id) => (status === 'paused' ? undefined : `container ${id} is not paused`),
  exec: (status, id) =>
    status === 'running'
      ? undefined
      : status === 'paused'
        ? `container ${id} is paused, unpause the container before exec`
        : status === 'restarting'
          ? `container ${id} is restarting, wait until the container is running`
          : `container ${id} is not running`,
  attach: (status, id) =>
    status === 'paused'
      ? `container ${id} is paused, unpause the container before attach`
      : status === 'restarting'
        ? `container ${id} is restarting, wait until the container is running`
        : undefined,
  top: (status, id) =>
    status === 'restarting'
      ? `container ${id} is restarting, wait until the container is running`
      : ALIVE.has(status)
        ? undefined
        : `container ${id} is not running`,
  update: (status) =>
    status === 'removing' || status === 'dead'
      ? 'container is marked for removal and cannot be "update"'
      : undefined,
  remove: (status, id, name) =>
    status === 'removing'
      ? `removal of container ${id} is already in progress`
      : status === 'paused'
        ? `cannot remove container "/${name}": container is paused and must be unpaused first`
        : status === 'running' || status === 'restarting'
          ? `cannot remove container "/${name}": container is ${status}: stop the container before removing or force remove`
          : undefined,
};

/** First delay before a restart, and the longest. moby: restartmanager. */
const RESTART_DELAY_MS_MIN = 100;
const RESTART_DELAY_MS_MAX = 60_000;
/** A container that ran at least this long starts over with the first delay. */
const RESTART_RESET_MS = 10_000;

/** How a container ended. */
export interface Ending {
  exitCode: number;
  ranMs: number;
  stoppedByUser: boolean;
}

/** Decides whether and when a container starts again: one per container, since the delay grows. */
export class RestartPolicy {
  #delayMs = 0;
  #count = 0;

  /** The delay before the next start, or undefined when it stays down. */
  after(policy: HostConfig['RestartPolicy'], ending: Ending): number | undefined {
    if (ending.stoppedByUser) return undefined;
    const name = policy?.Name ?? 'no';
    const wanted =
      name === 'always' ||
      name === 'unless-stopped' ||
      (name === 'on-failure' &&
        ending.exitCode !== 0 &&
        (!policy?.MaximumRetryCount || this.#count < policy.MaximumRetryCount));
    if (!wanted) return undefined;
    this.#count++;
    this.#delayMs =
      this.#delayMs === 0 || ending.ranMs >= RESTART_RESET_MS
        ? RESTART_DELAY_MS_MIN
        : Math.min(this.#delayMs * 2, RESTART_DELAY_MS_MAX);
    return this.#delayMs;
  }

  /** A user started it: counts begin again. */
  reset(): void {
    this.#delayMs = 0;
    this.#count = 0;
  }
}

/** Whether a daemon that starts should start this container (moby: daemon.restore). */
export function startsWithDaemon(policy: HostConfig['RestartPolicy'], state: ContainerState): boolean {
  if (state.status === 'created') return false;
  const { Name, MaximumRetryCount: most = 0 } = policy ?? {};
  switch (Name) {
    case 'always':
      return true;
    case 'unless-stopped':
      return !state.stoppedByUser;
    case 'on-failure':
      return state.exitCode !== 0 && !state.stoppedByUser && (most === 0 || state.restartCount < most);
    default:
      return false;
  }
}
