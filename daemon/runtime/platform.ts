/**
 * Which runtime this platform has. Imported dynamically, since the others' system calls cannot even be declared here.
 */
import { type Clock, systemClock } from '#common/clock';
import { DrydockError } from '#common/errors';
import { type Log, nullLog } from '#common/log';
import { cryptoRng } from '#common/rng';
import type { RuntimeProgram } from '../config-values.ts';
import { ProxiedJails } from '../network/proxied/jails.ts';
import { defaultSpec } from './defaults.ts';
import type { JailReportRow } from './runtime.ts';
import { RuntimeSet } from './runtime-set.ts';

/** How a runtime is made. */
export interface RuntimeOptions {
  /** What tells this daemon's cgroups and processes from those of others: letters, digits and dashes. */
  instance: string;
  /** A folder for what lives no longer than the daemon. */
  execRoot: string;
  log: Log;
  clock: Clock;
  /** How jails without a network namespace reach networks; undefined: they have none. */
  proxied?: ProxiedJails;
  /** Containers go on while no daemon runs. */
  liveRestore?: boolean;
  /** OCI runtimes besides our own, by name. */
  runtimes?: Record<string, RuntimeProgram>;
  /** The one for containers that name none; our own when empty. */
  defaultRuntime?: string;
}

/** A program that speaks the command line of runc. */
export interface OciCommand {
  /** What it is called in `docker info`. */
  name: string;
  /** A path, or a name in PATH. */
  command: string;
  /** What comes before its subcommand. */
  args?: readonly string[];
}

const linux = process.platform === 'linux' ? await import('./linux/linux-runtime.ts') : undefined;
const oci = process.platform === 'linux' ? await import('./oci/oci-runtime.ts') : undefined;
const darwin =
  process.platform === 'darwin'
    ? {
        ...(await import('./darwin/darwin-runtime.ts')),
        ...(await import('./darwin/bundle-runtime.ts')),
        ...(await import('#common/native/darwin/calls')),
      }
    : undefined;
const plain = process.platform === 'linux' ? await import('./plain/plain-runtime.ts') : undefined;
/** The name of the runtime without namespaces; a configured one of that name comes first. */
const PLAIN = 'plain';

/**
 * The runtime of this platform, not yet open.
 *
 * @throws DrydockError ERR_PLATFORM where there is none.
 */
export function createRuntime(options: RuntimeOptions): RuntimeSet {
  if (linux && oci && plain)
    return new RuntimeSet(
      new linux.LinuxRuntime(options),
      new Map([[PLAIN, new plain.PlainRuntime(options)]]),
      (name, { path, runtimeArgs = [] }) =>
        new oci.OciRuntime({ name, command: path, args: runtimeArgs }, options),
      options.runtimes ?? {},
      options.defaultRuntime ?? '',
      options.liveRestore,
    );
  if (darwin)
    return new RuntimeSet(
      new darwin.DarwinRuntime(options, darwin.thisDarwin(new darwin.DarwinCalls())),
      new Map(),
      (name, { path, runtimeArgs = [] }) =>
        new darwin.BundleRuntime({ name, command: path, args: runtimeArgs }, options),
      options.runtimes ?? {},
      options.defaultRuntime ?? '',
    );
  throw new DrydockError(
    'ERR_PLATFORM',
    `Containers on ${process.platform} are not possible yet: run the daemon on Linux (x86-64 or arm64), version 5.12 or later.`,
  );
}

/** What a container that asks for nothing gets on this machine, whether a daemon runs or not. */
export function defaultReport(): JailReportRow[] {
  const runtime = createRuntime({
    instance: 'report',
    execRoot: '',
    log: nullLog,
    clock: systemClock,
    proxied: new ProxiedJails(cryptoRng),
  });
  return runtime.report(defaultSpec('0'.repeat(64), '/'));
}
