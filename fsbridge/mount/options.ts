/** What a mount is asked to be, checked: options, both ends, the policy, the file of a trace. */
import { openSync } from 'node:fs';
import { lstat, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { operations } from '../ops/table.ts';
import { checkExported } from '../policy/exports.ts';
import type { IdRange } from '../policy/id-map.ts';
import { type Consistency, defaultPolicy, type OwnershipMode, type Policy } from '../policy/options.ts';
import type { OperationStats, Statistics } from '../statistics.ts';

/** What to mount, where and how. */
export interface BridgeMountOptions {
  /** Host folder or file. It must exist. */
  source: string;
  /** An existing folder (or file, when the source is one) to mount on. */
  target: string;
  readOnly?: boolean;
  /** Default `consistent`. */
  consistency?: Consistency;
  /** Whether device nodes may be made in the folder. They can't be opened through the mount. Default no. */
  devices?: boolean;
  /** Whether the kernel may read and write files itself where it can (FUSE passthrough). Default yes. */
  passthrough?: boolean;
  /** Whose files are, default the host's owners (policy/options.ts). */
  ownership?: OwnershipMode;
  /** Users with another number in the mount than on the host; without any, none has. Not with ownership `caller`. */
  uidMap?: readonly IdRange[];
  /** Groups, likewise. */
  gidMap?: readonly IdRange[];
  /** Folders of which the source must be in one once links are followed; without any, all of the host may be served. */
  exports?: readonly string[];
  /** A file, not in the target, to which a line of JSON is appended for each request. Slow. */
  trace?: string;
  log?: Log;
}

/** A mounted folder. */
export interface BridgeMount {
  readonly source: string;
  readonly target: string;
  /** Settles when the mount has ended, by unmount() or because the server failed. */
  readonly ended: Promise<void>;
  /** Requests served and the time they took, by operation name. */
  stats(): Promise<Record<string, OperationStats>>;
  /** Unmounts (lazily when busy) and stops the server. */
  unmount(): Promise<void>;
}

/** Follows the links of both ends and checks that they fit. @throws ERR_FS_SOURCE, ERR_FS_TARGET, ERR_FS_NOT_EXPORTED */
export async function checkEnds(
  options: BridgeMountOptions,
): Promise<{ source: string; target: string; file: boolean }> {
  let source: string;
  let target: string;
  try {
    source = await realpath(options.source);
  } catch (error) {
    const text = `The source ${options.source} can't be used (${errorCode(error)}). Create it first.`;
    throw new DrydockError('ERR_FS_SOURCE', text, { cause: error });
  }
  try {
    target = await realpath(options.target);
  } catch (error) {
    const text = `The target ${options.target} can't be used (${errorCode(error)}). Create it first.`;
    throw new DrydockError('ERR_FS_TARGET', text, { cause: error });
  }
  await checkExported(source, options.exports ?? []);
  const [from, to] = await Promise.all([lstat(source), lstat(target)]);
  if (!from.isDirectory() && !from.isFile()) {
    const text = `${source} is neither a folder nor a regular file: sockets, pipes and devices can't be served.`;
    throw new DrydockError('ERR_FS_SOURCE', text);
  }
  if (from.isDirectory() !== to.isDirectory()) {
    const text = `${source} and ${target} must both be folders or both be files.`;
    throw new DrydockError('ERR_FS_TARGET', text);
  }
  return { source, target, file: from.isFile() };
}

/** How the options say that it is to be served. @throws ERR_FS_ID_MAP */
export function policyOf(options: BridgeMountOptions): Policy {
  const policy: Policy = {
    readOnly: options.readOnly ?? defaultPolicy.readOnly,
    consistency: options.consistency ?? defaultPolicy.consistency,
    devices: options.devices ?? defaultPolicy.devices,
    passthrough: options.passthrough ?? defaultPolicy.passthrough,
    ownership: options.ownership ?? defaultPolicy.ownership,
    uidMap: options.uidMap ?? defaultPolicy.uidMap,
    gidMap: options.gidMap ?? defaultPolicy.gidMap,
  };
  if (policy.ownership === 'caller' && policy.uidMap.length + policy.gidMap.length > 0)
    throw new DrydockError(
      'ERR_FS_ID_MAP',
      'Ids can be mapped only where owners are the host\'s: with ownership "caller" everybody sees itself.',
    );
  return policy;
}

/** Opens the file for the trace, or gives -1. The server would wait for itself to write into its own mount. */
export async function openTrace(path: string | undefined, target: string): Promise<number> {
  if (path === undefined) return -1;
  try {
    const real = join(await realpath(dirname(path)), basename(path));
    if (`${real}/`.startsWith(`${target}/`)) throw new Error(`it is in the target ${target}`);
    return openSync(real, 'a', 0o600);
  } catch (error) {
    const text = `The trace can't be written to ${path}: ${errorMessage(error)}.`;
    throw new DrydockError('ERR_FS_TRACE', text, { cause: error });
  }
}

/** Statistics by the operations' names. */
export function statsOf(statistics: Statistics): Record<string, OperationStats> {
  const result: Record<string, OperationStats> = {};
  operations.forEach((operation, opcode) => {
    const found = statistics.of(opcode);
    if (operation !== undefined && found !== undefined) result[operation.name] = found;
  });
  return result;
}
