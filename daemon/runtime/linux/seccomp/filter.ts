/** The seccomp filter of a jail on this machine. */
import { arch, release } from 'node:os';
import { DrydockError } from '#common/errors';
import type { SeccompFilter } from '../../../launch/protocol.ts';
import type { JailSpec } from '../../runtime.ts';
import { compileSeccomp } from './compile.ts';
import { DEFAULT_SECCOMP_PROFILE } from './profile.ts';

const MACHINES: Record<string, 'x86_64' | 'aarch64'> = { x64: 'x86_64', arm64: 'aarch64' };

/** @throws DrydockError ERR_BAD_SECCOMP for a profile that cannot be compiled. */
export function seccompFilter(spec: JailSpec): SeccompFilter {
  if (spec.privileged || spec.seccomp === 'unconfined') return undefined;
  const machine = MACHINES[arch()];
  if (machine === undefined)
    throw new DrydockError(
      'ERR_BAD_SECCOMP',
      `There is no table of system calls for ${arch()}: start the container with --security-opt seccomp=unconfined.`,
    );
  const filter = compileSeccomp(spec.seccomp ?? DEFAULT_SECCOMP_PROFILE, {
    machine,
    kernel: release(),
    capabilities: new Set(spec.process.capabilities),
  });
  return Buffer.from(filter).toString('base64');
}
