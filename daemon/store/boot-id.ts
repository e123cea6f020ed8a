/** Tells runs of the machine apart: what was not synced in an earlier one may not have come to the disk. */
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';

/** Names this run of the machine; where the system does not tell, no two calls give the same. */
export async function bootId(): Promise<string> {
  const text = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => randomUUID());
  return text.trim();
}
