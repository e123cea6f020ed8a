/** Signals by the names and numbers that docker clients use. */
import { constants } from 'node:os';
import { DrydockError } from '#common/errors';

const NUMBERS: ReadonlyMap<string, number> = new Map(Object.entries(constants.signals));
/** Real-time signals have no constants in Node: SIGRTMIN is 34 with glibc and with musl. */
const RTMIN = 34;
const RTMAX = 64;

/**
 * The number of `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
 * @throws ERR_BAD_PARAMETER `invalid signal: x`
 */
export function signalNumber(text: string): number {
  const bad = (): DrydockError => new DrydockError('ERR_BAD_PARAMETER', `invalid signal: ${text}`);
  if (/^\d+$/.test(text)) {
    const number = Number(text);
    if (number < 1 || number > RTMAX) throw bad();
    return number;
  }
  const name = text.toUpperCase().replace(/^(SIG)?/, 'SIG');
  const realTime = /^SIGRT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  if (realTime) {
    const offset = Number(realTime[3] ?? 0) * (realTime[2] === '-' ? -1 : 1);
    const number = (realTime[1] === 'MIN' ? RTMIN : RTMAX) + offset;
    if (number < RTMIN || number > RTMAX) throw bad();
    return number;
  }
  const number = NUMBERS.get(name);
  if (number === undefined) throw bad();
  return number;
}
