/** The seccomp filter of a jail on this machine. */
import { arch, release } from 'node:os';
import { DrydockError } from '#common/errors';
import type { SeccompFilter } from '../../../launch/protocol.ts';
import type { JailSpec, SeccompProfile } from '../../runtime.ts';
import { type CompileContext, compileSeccomp } from './compile.ts';
import { DEFAULT_SECCOMP_PROFILE } from './profile.ts';

const MACHINES: Record<string, 'x86_64' | 'aarch64'> = { x64: 'x86_64', arm64: 'aarch64' };

/** What the conditions of a jail's profile are about, on this machine. */
export function compileContext(spec: JailSpec): CompileContext {
  const machine = MACHINES[arch()];
  if (machine === undefined)
    throw new DrydockError(
      'ERR_BAD_SECCOMP',
      `There is no table of system calls for ${arch()}: start the container with --security-opt seccomp=unconfined.`,
    );
  return { machine, kernel: release(), capabilities: new Set(spec.process.capabilities) };
}

/** The profile that a jail is under; undefined for none. */
export function profileOf(spec: JailSpec): SeccompProfile | undefined {
  if (spec.privileged || spec.seccomp === 'unconfined') return undefined;
  return spec.seccomp ?? DEFAULT_SECCOMP_PROFILE;
}

/** @throws DrydockError ERR_BAD_SECCOMP for a profile that cannot be compiled. */
export function seccompFilter(spec: JailSpec): SeccompFilter {
  const profile = profileOf(spec);
  if (!profile) return undefined;
  return Buffer.from(compileSeccomp(profile, compileContext(spec))).toString('base64');
}
