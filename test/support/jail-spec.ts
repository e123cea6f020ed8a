/** A jail's specification for tests: that of a plain container, with changes. */
import { DEFAULT_CAPABILITIES, DEFAULT_DEVICES } from '../../daemon/runtime/defaults.ts';
import type { JailSpec, ProcessSpec } from '../../daemon/runtime/runtime.ts';

/** What to change of it. */
export type ExampleChanges = Partial<Omit<JailSpec, 'process'>> & { process?: Partial<ProcessSpec> };

/** A specification without mounts and masks, for pure functions. */
export function exampleSpec(changes: ExampleChanges): JailSpec {
  return {
    id: 'a'.repeat(64),
    rootPath: '/root-of-it',
    readOnlyRoot: false,
    hostname: 'h',
    domainname: '',
    namespaces: { network: 'private', pid: 'private', ipc: 'private', uts: 'private', cgroup: 'private' },
    network: { attached: true, ports: [] },
    mounts: [],
    devices: [...DEFAULT_DEVICES],
    privileged: false,
    maskedPaths: [],
    readonlyPaths: [],
    sysctls: {},
    limits: {},
    init: false,
    ...changes,
    process: {
      args: ['true'],
      env: [],
      cwd: '/',
      makeCwd: false,
      user: '',
      groups: [],
      terminal: false,
      stdin: false,
      capabilities: [...DEFAULT_CAPABILITIES],
      noNewPrivileges: false,
      rlimits: [],
      ...changes.process,
    },
  };
}
