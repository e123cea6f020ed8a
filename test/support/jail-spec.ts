/** A jail's specification for tests: that of a plain container, with changes. */
import { defaultSpec } from '../../daemon/runtime/defaults.ts';
import type { JailSpec, ProcessSpec } from '../../daemon/runtime/runtime.ts';

/** What to change of it. */
export type ExampleChanges = Partial<Omit<JailSpec, 'process'>> & { process?: Partial<ProcessSpec> };

/** A specification without mounts and masks, for pure functions. */
export function exampleSpec(changes: ExampleChanges): JailSpec {
  const spec = defaultSpec('a'.repeat(64), '/root-of-it');
  return {
    ...spec,
    hostname: 'h',
    mounts: [],
    maskedPaths: [],
    readonlyPaths: [],
    sysctls: {},
    ...changes,
    process: { ...spec.process, args: ['true'], makeCwd: false, ...changes.process },
  };
}
