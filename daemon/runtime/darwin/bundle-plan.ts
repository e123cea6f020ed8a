/** From a specification to the bundle of a runtime that brings a kernel of its own, and to the report of it. Pure. */
import { DrydockError } from '#common/errors';
import { DEFAULT_CAPABILITIES } from '../defaults.ts';
import { ociProcess } from '../oci/bundle.ts';
import type { JailReportRow, JailSpec, ProcessSpec } from '../runtime.ts';
import { jailPolicy } from '../spec/policy.ts';

/** Files that every container is given, and can do without. */
const GIVEN = new Set(['/etc/hosts', '/etc/hostname', '/etc/resolv.conf']);

/** @throws DrydockError ERR_JAIL_PROMISE naming what cannot be kept, and what to do instead */
export function checkBundle(spec: JailSpec): void {
  const { process } = spec;
  const policy = jailPolicy(spec);
  const bind = spec.mounts.find(({ kind, target }) => kind === 'bind' && !GIVEN.has(target));
  const joined = Object.entries(spec.namespaces).filter(([, mode]) => typeof mode === 'object');
  const broken: [boolean, string][] = [
    [spec.privileged, 'cannot be privileged'],
    [
      process.capabilities.some((name) => !DEFAULT_CAPABILITIES.includes(name)),
      'has no capabilities to add: leave --cap-add out',
    ],
    [
      policy.network === 'attached',
      'has no network of its own: give it --network none, or plug a virtual machine into `drydock net`',
    ],
    [joined.length > 0, `cannot share the ${joined.map(([kind]) => kind).join(', ')} namespace of another`],
    [bind !== undefined, `cannot show ${bind?.source} at ${bind?.target}: put what it needs into the image`],
    [process.terminal, 'has no terminal: leave -t out'],
    [!/^(\d+(:\d+)?)?$/.test(process.user), `knows users by number only, not ${process.user}`],
  ];
  for (const [isBroken, what] of broken)
    if (isBroken)
      throw new DrydockError(
        'ERR_JAIL_PROMISE',
        `A container of a runtime with a kernel of its own ${what}.`,
      );
}

/** The `process` object, first or further. */
export function bundleProcess(process: ProcessSpec): object {
  const [uid = 0, gid = 0] = process.user.split(':').map(Number);
  return ociProcess(process, { uid, gid, groups: [], home: '/' }, {});
}

/** The whole config.json. */
export function bundleConfig(spec: JailSpec): object {
  return {
    ociVersion: '1.0.2',
    process: bundleProcess(spec.process),
    root: { path: spec.rootPath, readonly: spec.readOnlyRoot },
    hostname: spec.hostname || undefined,
    mounts: [],
    annotations: spec.annotations,
  };
}

/** See Runtime.report. */
export function bundleReport(spec: JailSpec): JailReportRow[] {
  const row = (feature: string, asked: string, got: JailReportRow['got'], how: string, bypass?: string) => ({
    ...{ feature, asked, got, how },
    ...(bypass !== undefined && { bypass }),
  });
  const limits = Object.entries(spec.limits).filter(([, value]) => value);
  return [
    row(
      'kernel',
      'one that is kept apart',
      'partial',
      'a library in the runtime’s own process, which runs as the daemon’s user; programs do not call the host’s kernel',
      'a fault of that library, which nothing else stands behind',
    ),
    row('network', jailPolicy(spec).network, 'full', 'none but what the runtime makes of the host’s'),
    row(
      'root file system',
      spec.readOnlyRoot ? 'read-only' : 'writable',
      spec.readOnlyRoot ? 'partial' : 'full',
      'the image’s files, by the runtime',
    ),
    row('names', 'hosts and resolv.conf', 'none', 'the image’s own files are what it sees'),
    row(
      'system calls',
      spec.seccomp === 'unconfined' ? 'none' : 'seccomp profile',
      'none',
      'the library kernel’s',
    ),
    ...(limits.length > 0
      ? [row('limits', limits.map(([name]) => name).join(','), 'none', 'a Mac has no control groups')]
      : []),
  ];
}
