/** The system calls that the launcher makes, and the one walk of a tree, in one object, so that a test can record them instead. */
import * as child from '#common/native/child';
import * as labels from '#common/native/labels';
import * as landlock from '#common/native/landlock';
import * as mount from '#common/native/mount';
import * as namespace from '#common/native/namespace';
import * as process from '#common/native/process';
import * as seccomp from '#common/native/seccomp';
import * as tty from '#common/native/tty';
import * as claim from './claim.ts';

/** See the files of common/native for each call. */
export type System = typeof child &
  typeof labels &
  typeof landlock &
  typeof mount &
  typeof namespace &
  typeof process &
  typeof seccomp &
  typeof tty &
  typeof claim;

/** The real ones. */
export const linuxSystem: System = {
  ...child,
  ...labels,
  ...landlock,
  ...mount,
  ...namespace,
  ...process,
  ...seccomp,
  ...tty,
  ...claim,
};
