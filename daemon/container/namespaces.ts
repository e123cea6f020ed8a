/** Namespaces that containers share, as `--network`, `--pid` and `--ipc container:NAME` ask for. */
import { DrydockError } from '#common/errors';
import { isAlive } from './lifecycle.ts';
import type { Places } from './spec.ts';
import type { ContainerRecord } from './types.ts';

/** Finds another container. */
type Lookup = (reference: string) => ContainerRecord;

function donorOf(mode: string | undefined, find: Lookup): ContainerRecord | undefined {
  return mode?.startsWith('container:') ? find(mode.slice('container:'.length)) : undefined;
}

/** Processes in the namespaces that a container joins. @throws ERR_CONFLICT where a donor does not run, or is itself */
export function namespacePids({ id, hostConfig }: ContainerRecord, find: Lookup): Places['pids'] {
  const pidOf = (mode: string | undefined): number | undefined => {
    const other = donorOf(mode, find);
    if (!other) return undefined;
    if (other.id === id)
      throw new DrydockError('ERR_CONFLICT', `container ${id} can not join its own namespaces`);
    if (!isAlive(other.state.status))
      throw new DrydockError(
        'ERR_CONFLICT',
        `cannot join namespace of a non running container: container ${other.id} is ${other.state.status}`,
      );
    return other.state.pid;
  };
  const { NetworkMode, PidMode, IpcMode } = hostConfig;
  const pids: Places['pids'] = {};
  const [network, pid, ipc] = [pidOf(NetworkMode), pidOf(PidMode), pidOf(IpcMode)];
  if (network !== undefined) pids.network = network;
  if (pid !== undefined) pids.pid = pid;
  if (ipc !== undefined) pids.ipc = ipc;
  return pids;
}

/** Whose shared memory a container uses. @throws ERR_BAD_PARAMETER where that one keeps it to itself */
export function ipcDonor({ hostConfig }: ContainerRecord, find: Lookup): ContainerRecord | undefined {
  const donor = donorOf(hostConfig.IpcMode, find);
  if (!donor || donor.hostConfig.IpcMode === 'shareable') return donor;
  throw new DrydockError(
    'ERR_BAD_PARAMETER',
    `cannot join IPC namespace: container ${donor.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
  );
}
