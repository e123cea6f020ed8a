/**
 * Follows the host's resolv.conf. It is replaced or rewritten when a VPN or another network comes, often behind a symbolic
 * link; so it is simply read now and then, instead of watching one inode that may never change again. A machine that
 * boots without a network has no such file yet: that is an empty one.
 */
import { readFileSync } from 'node:fs';
import { parseResolvConf, type Upstream } from '../service/dns/upstreams.ts';

export const RESOLV_CONF = '/etc/resolv.conf';
/** How often the file is read. */
const INTERVAL_MS = 2000;

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** The file's text as it is now. */
export function readResolvConf(): string {
  return read(RESOLV_CONF);
}

/**
 * Calls `changed` with the servers of `path` now and each time that the file changes. Does not keep the process alive.
 * @returns a function that ends it.
 */
export function followResolvConf(
  path: string,
  changed: (upstreams: Upstream[]) => void,
  intervalMs: number = INTERVAL_MS,
): () => void {
  const take = (text: string): void => changed(parseResolvConf(text));
  take(read(path));
  return followFile(path, take, intervalMs);
}

/**
 * Calls `changed` with the text of a file each time that it changes from now on; a file that is not there is empty. Does
 * not keep the process alive.
 * @returns a function that ends it.
 */
export function followFile(
  path: string,
  changed: (text: string) => void,
  intervalMs: number = INTERVAL_MS,
): () => void {
  let text = read(path);
  const timer = setInterval(() => {
    const next = read(path);
    if (next === text) return;
    text = next;
    changed(text);
  }, intervalMs);
  timer.unref();
  return () => clearInterval(timer);
}
