/**
 * Follows the host's resolv.conf. It is replaced or rewritten when a VPN or another network comes, often behind a symbolic
 * link; so its state is asked for now and then, by stat(2) through the link, instead of watching one inode that may never
 * change again. A machine that boots without a network has no such file yet: that is an empty one.
 */
import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { parseResolvConf, type Upstream } from '../service/dns/upstreams.ts';

export const RESOLV_CONF = '/etc/resolv.conf';
/** How often the file is looked at. */
const INTERVAL_MS = 2000;

function read(path: string): Upstream[] {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'));
  } catch {
    return [];
  }
}

/**
 * Calls `changed` with the servers of `path` now and each time that the file changes. Does not keep the process alive.
 * @returns a function that ends it.
 */
export function followResolvConf(path: string, changed: (upstreams: Upstream[]) => void): () => void {
  const listener = (): void => changed(read(path));
  watchFile(path, { interval: INTERVAL_MS, persistent: false }, listener);
  listener();
  return () => unwatchFile(path, listener);
}
