/**
 * `docker update`: which options of a container may change, and which of them exclude each other (moby:
 * container/container_unix.go, UpdateContainer). Pure.
 */
import { DrydockError } from '#common/errors';
import type { HostConfig } from './types.ts';

const UPDATABLE: ReadonlySet<string> = new Set([
  'BlkioWeight',
  'CpuPeriod',
  'CpuQuota',
  'CpuShares',
  'CpusetCpus',
  'CpusetMems',
  'Memory',
  'MemoryReservation',
  'MemorySwap',
  'NanoCpus',
  'PidsLimit',
  'RestartPolicy',
]);

/** Clients send all fields: these values mean that nothing is asked for. */
function isEmpty(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  return value === undefined || value === null || value === 0 || value === '' || value === false;
}

function conflict(message: string): DrydockError {
  return new DrydockError('ERR_CONFLICT', message);
}

function checkConflicts(before: HostConfig, changes: HostConfig): void {
  const set = (value: number | undefined): boolean => (value ?? 0) > 0;
  const cannot = (what: string, other: string): DrydockError =>
    conflict(`Conflicting options: ${what} cannot be updated as ${other} has already been set`);
  if (set(before.NanoCpus) && set(changes.CpuPeriod)) throw cannot('CPU Period', 'NanoCPUs');
  if (set(before.NanoCpus) && set(changes.CpuQuota)) throw cannot('CPU Quota', 'NanoCPUs');
  if (set(before.CpuPeriod) && set(changes.NanoCpus)) throw cannot('NanoCPUs', 'CPU Period');
  if (set(before.CpuQuota) && set(changes.NanoCpus)) throw cannot('NanoCPUs', 'CPU Quota');
  const { Memory = 0, MemorySwap = 0 } = changes;
  if (Memory > 0 && MemorySwap === 0 && set(before.MemorySwap) && Memory > before.MemorySwap!)
    throw conflict(
      'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
    );
  if (before.AutoRemove && !['', 'no'].includes(changes.RestartPolicy?.Name ?? ''))
    throw conflict('Restart policy cannot be updated because AutoRemove is enabled for the container');
}

/**
 * The configuration after an update.
 * @throws ERR_BAD_PARAMETER for what is fixed, ERR_CONFLICT for what excludes what was set before
 */
export function updatedHostConfig(before: HostConfig, changes: HostConfig): HostConfig {
  checkConflicts(before, changes);
  const next: HostConfig = { ...before };
  for (const [key, value] of Object.entries(changes)) {
    if (isEmpty(value)) continue;
    if (!UPDATABLE.has(key))
      throw new DrydockError('ERR_BAD_PARAMETER', `update: ${key} can not be changed after create`);
    Object.assign(next, { [key]: value });
  }
  if (changes.RestartPolicy && !changes.RestartPolicy.Name) next.RestartPolicy = before.RestartPolicy ?? {};
  return next;
}
