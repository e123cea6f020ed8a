/** /proc/self/mountinfo (proc(5)), of which we need where each file system is mounted. */
import { readFile } from 'node:fs/promises';
import { errorCode } from '#common/errors';

/** A mount that this process sees. */
export interface MountEntry {
  id: number;
  /** Device as `major:minor`. */
  device: string;
  target: string;
  readOnly: boolean;
  /** Who learns of mounts made below it: `shared` and `slave` may be both. */
  shared: boolean;
  slave: boolean;
  type: string;
  source: string;
}

/** What this process sees mounted; nothing on a system without such a list. */
export async function mountEntries(): Promise<MountEntry[]> {
  try {
    return parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

/** Parses the file; lines that aren't understood are left out. */
export function parseMountInfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const [before, after] = line.split(' - ');
    const fields = before?.split(' ') ?? [];
    const [type, source] = after?.split(' ') ?? [];
    const [id, , device, , target, options, ...tags] = fields;
    if (!device || !target || !type || source === undefined) continue;
    entries.push({
      id: Number(id),
      device,
      target: unescapeOctal(target),
      readOnly: options?.split(',').includes('ro') === true,
      shared: tags.some((tag) => tag.startsWith('shared:')),
      slave: tags.some((tag) => tag.startsWith('master:')),
      type,
      source: unescapeOctal(source),
    });
  }
  return entries;
}

/** Space, tab, newline and backslash are written as `\040` and so on. */
function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
