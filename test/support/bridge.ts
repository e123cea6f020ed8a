/** A folder of the host and a bridge mount of it, for tests that look from both sides. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { errorMessage } from '#common/errors';
import type { Log } from '#common/log';
import { type BridgeMount, type BridgeMountOptions, mountFolder } from '#fsbridge';

export interface BridgePair {
  mount: BridgeMount;
  /** Warnings and errors of the server. */
  trouble: string[];
  /** A path on the host's side, and on the mount's. */
  host(...names: string[]): string;
  guest(...names: string[]): string;
  remove(): Promise<void>;
}

/** Makes both folders and mounts. With `file`, both are files and host() and guest() name them. */
export async function bridgePair(
  options: Partial<BridgeMountOptions> & { file?: string } = {},
): Promise<BridgePair> {
  const base = mkdtempSync(join(tmpdir(), 'drydock-fs-'));
  // Other users must be able to pass.
  chmodSync(base, 0o755);
  const source = join(base, 'host');
  const target = join(base, 'guest');
  const { file, ...rest } = options;
  if (file === undefined) {
    mkdirSync(source);
    mkdirSync(target);
  } else {
    writeFileSync(source, file);
    writeFileSync(target, '');
  }
  const trouble: string[] = [];
  const note = (fields: object, message: string): void => {
    trouble.push(`${message} ${JSON.stringify(fields)}`);
  };
  const log: Log = { debug() {}, info() {}, warn: note, error: note, child: () => log };
  const mount = await mountFolder({ source, target, log, ...rest });
  return {
    mount,
    trouble,
    host: (...names) => join(source, ...names),
    guest: (...names) => join(target, ...names),
    remove: async () => {
      await mount.unmount();
      rmSync(base, { recursive: true, force: true });
    },
  };
}

/** Requests that a mount served so far, of one operation or of all. */
export async function served(mount: BridgeMount, operation?: string): Promise<number> {
  return Object.entries(await mount.stats())
    .filter(([name]) => operation === undefined || name === operation)
    .reduce((sum, [, { count }]) => sum + count, 0);
}

/** The name of the error that `body` throws, or `ok`. */
export function failure(body: () => unknown): string {
  try {
    body();
    return 'ok';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? errorMessage(error);
  }
}

/** Waits until `condition` holds, for at most `timeoutMs`; whether it does. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 5000,
): Promise<boolean> {
  const endAt = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > endAt) return false;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return true;
}
