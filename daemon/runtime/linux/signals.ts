/** Signals by name or number, as docker's command line has them. */
import { constants } from 'node:os';
import { DrydockError } from '#common/errors';

/** glibc's SIGRTMIN and SIGRTMAX; the kernel's first two are its own. */
const REALTIME_MIN = 34;
const REALTIME_MAX = 64;

/** @throws DrydockError ERR_BAD_SIGNAL */
export function signalNumber(signal: string | number): number {
  const text = String(signal).toUpperCase().replace(/^SIG/, '');
  const realtime = /^RT(MIN|MAX)([+-]\d+)?$/.exec(text);
  let number = Number(text);
  if (realtime) number = (realtime[1] === 'MIN' ? REALTIME_MIN : REALTIME_MAX) + Number(realtime[2] ?? 0);
  else if (!/^\d+$/.test(text)) number = (constants.signals as Record<string, number>)[`SIG${text}`] ?? 0;
  if (number >= 1 && number <= REALTIME_MAX) return number;
  throw new DrydockError('ERR_BAD_SIGNAL', `Invalid signal: ${signal}`);
}

/** `SIGTERM` of 15, `SIGRTMIN+3` of 37. */
export function signalName(number: number): string {
  const name = Object.entries(constants.signals).find(([, value]) => value === number)?.[0];
  return name ?? `SIGRTMIN+${number - REALTIME_MIN}`;
}
