/** Whether this process is root of a user namespace only (user_namespaces(7)), as the daemon of an ordinary user is. */
import { readFileSync } from 'node:fs';

/** The map of the machine itself: every number is its own. */
const WHOLE = /^\s*0\s+0\s+4294967295\s*$/;

function readMap(): string {
  try {
    return readFileSync('/proc/self/uid_map', 'utf8');
  } catch {
    return '';
  }
}

const map = readMap();

/** True for a process whose user numbers are not the machine's. */
export const inUserNamespace: boolean = map !== '' && !WHOLE.test(map);

/** The number that the machine has for uid 0 here. */
export function outsideRoot(): number {
  return Number(/^\s*0\s+(\d+)/m.exec(map)?.[1] ?? 0);
}

/** Whether only root has a number here: then nothing can belong to anybody else. */
export function isSingleUser(): boolean {
  return inUserNamespace && /^\s*0\s+\d+\s+1\s*$/.test(map);
}
