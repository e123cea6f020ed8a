// What an engine keeps in memory for itself.
import { readdirSync, readFileSync } from 'node:fs';

function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** The engine's own processes: those that name its folder, and our launchers that wait for work. */
function processesOf({ pid, folder }) {
  return readdirSync('/proc').filter((entry) => {
    if (!/^\d+$/.test(entry)) return false;
    if (Number(entry) === pid) return true;
    const words = read(`/proc/${entry}/cmdline`).split('\0');
    if (words[0] === 'drydock-launch')
      return Number(/PPid:\s+(\d+)/.exec(read(`/proc/${entry}/status`))?.[1]) === pid;
    return words.some((word) => word.startsWith(`${folder}/`) || word.startsWith(`${folder}-exec/`));
  });
}

/** Proportional set size in MiB: shared pages are counted once, divided among those who share them. */
export function pssMib(peer) {
  const kib = processesOf(peer).map((pid) =>
    Number(/^Pss:\s+(\d+)/m.exec(read(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0),
  );
  return kib.reduce((sum, value) => sum + value, 0) / 1024;
}
