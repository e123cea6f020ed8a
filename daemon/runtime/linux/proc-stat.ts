/** /proc/PID/stat (proc_pid_stat(5)). */
import { readFileSync } from 'node:fs';

/** Its fields by their number in the manual, from the third on; undefined when the process is gone. */
export function procStat(pid: number): ((field: number) => string) | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // The name, in parentheses, may hold anything.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (field) => fields[field - 3] ?? '';
}

/** When a process was started, in clock ticks since boot; '' when it is gone. */
export function processStartTime(pid: number): string {
  return procStat(pid)?.(22) ?? '';
}
