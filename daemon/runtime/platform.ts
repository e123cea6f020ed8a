/**
 * Which runtime this platform has. Imported dynamically, since the others' system calls cannot even be declared here.
 */
import type { Clock } from '#common/clock';
import { DrydockError } from '#common/errors';
import type { Log } from '#common/log';
import type { Runtime } from './runtime.ts';

/** How a runtime is made. */
export interface RuntimeOptions {
  /** What tells this daemon's cgroups and processes from those of others: letters, digits and dashes. */
  instance: string;
  /** A folder for what lives no longer than the daemon. */
  execRoot: string;
  log: Log;
  clock: Clock;
  /** An OCI runtime instead of our own. */
  oci?: OciCommand;
}

/** A program that speaks the command line of runc. */
export interface OciCommand {
  /** What it is called in `docker info`. */
  name: string;
  /** A path, or a name in PATH. */
  command: string;
}

const linux = process.platform === 'linux' ? await import('./linux/linux-runtime.ts') : undefined;
const oci = process.platform === 'linux' ? await import('./oci/oci-runtime.ts') : undefined;

/**
 * The runtime of this platform, not yet open.
 *
 * @throws DrydockError ERR_PLATFORM where there is none.
 */
export function createRuntime(options: RuntimeOptions): Runtime {
  if (oci && options.oci) return new oci.OciRuntime(options.oci, options);
  if (linux) return new linux.LinuxRuntime(options);
  throw new DrydockError(
    'ERR_PLATFORM',
    `Containers on ${process.platform} are not possible yet: run the daemon on Linux (x86-64 or arm64), version 5.12 or later.`,
  );
}
