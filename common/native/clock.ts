/**
 * What the kernel knows of its own clock: ntp_adjtime(3) without a change, the same call and the same first fields of
 * `struct timex` on Linux (sys/timex.h) and on Darwin.
 */
import { addressOf, cFunction, type NativeFunction } from './libc.ts';

/** `modes` is an int; the longs that follow are aligned to eight bytes: offset, freq, maxerror, esterror, status. */
const MAXERROR_OFF = 24;
const STATUS_OFF = 40;
/** Both kernels' structures are smaller. */
const TIMEX_BYTES = 512;
/** Nothing disciplines the clock, or has not for long. */
const STA_UNSYNC = 0x0040;

let adjust: NativeFunction | undefined;
const timex = new Uint8Array(TIMEX_BYTES);
const view = new DataView(timex.buffer);

/** Whether something disciplines this host's clock, and the most that it may be wrong by. */
export function hostClockQuality(): { synchronised: boolean; errorMaxMs: number } {
  try {
    adjust ??= cFunction('ntp_adjtime', 'int', ['int64']);
  } catch {
    // A C library without it (musl) leaves us knowing nothing.
    return { synchronised: false, errorMaxMs: 0 };
  }
  timex.fill(0);
  if (adjust(addressOf(timex)) < 0) return { synchronised: false, errorMaxMs: 0 };
  return {
    synchronised: (view.getInt32(STATUS_OFF, true) & STA_UNSYNC) === 0,
    errorMaxMs: Number(view.getBigInt64(MAXERROR_OFF, true)) / 1000,
  };
}
