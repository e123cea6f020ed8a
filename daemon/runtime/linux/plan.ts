/** From what the daemon asks to what the launcher does: the parts that `privileged` changes, and what is refused. */
import { DrydockError } from '#common/errors';
import type { ProgramLabels } from '../../launch/protocol.ts';
import { ALL_CAPABILITIES } from '../defaults.ts';
import type { JailDevice, JailSpec } from '../runtime.ts';
import { labelMounts } from './security/selinux.ts';

const ID = /^[0-9a-f]{64}$/;

/** Sysctls that belong to a namespace, by the namespace they need (moby/opts and runc's validator). */
const IPC_SYSCTLS =
  /^(kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced)|fs\.mqueue\.[a-z_]+)$/;
const NETWORK_SYSCTLS = /^net\.[A-Za-z0-9_./-]+$/;
const UTS_SYSCTLS = /^kernel\.(domainname|hostname)$/;

/**
 * The specification with everything that `privileged` and labels imply.
 *
 * @param hostDevices all devices of the host.
 */
export function effectiveSpec(
  wish: JailSpec,
  hostDevices: () => JailDevice[],
  labels: ProgramLabels = {},
): JailSpec {
  if (!ID.test(wish.id))
    throw new DrydockError('ERR_JAIL', `${JSON.stringify(wish.id)} is not a container id.`);
  checkSysctls(wish);
  const spec = { ...wish, mounts: labelMounts(wish.mounts, labels.selinux) };
  if (!spec.privileged) return spec;
  const known = new Set(spec.devices.map(({ path }) => path));
  return {
    ...spec,
    maskedPaths: [],
    readonlyPaths: [],
    devices: [...spec.devices, ...hostDevices().filter(({ path }) => !known.has(path))],
    process: { ...spec.process, capabilities: [...ALL_CAPABILITIES] },
  };
}

/** A sysctl that belongs to no namespace of the jail's own would be the host's. */
function checkSysctls(spec: JailSpec): void {
  const { namespaces } = spec;
  for (const name of Object.keys(spec.sysctls)) {
    const own =
      (IPC_SYSCTLS.test(name) && namespaces.ipc !== 'host') ||
      (NETWORK_SYSCTLS.test(name) && !name.includes('..') && namespaces.network !== 'host') ||
      (UTS_SYSCTLS.test(name) && namespaces.uts !== 'host');
    if (own) continue;
    throw new DrydockError(
      'ERR_JAIL_SYSCTL',
      `sysctl ${name} is not allowed: it would change the host. ` +
        'Only those of a namespace of the container are (net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*).',
    );
  }
}
