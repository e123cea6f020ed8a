/**
 * An NTP server (RFC 5905, mode 4) that hands on the time of the host: a request in, a reply out, no state.
 *
 * It is honest about the host's clock. When the host says that its clock is disciplined, the stratum is one that a client of
 * a public server's client has, and root delay and dispersion are the host's own error bound. When it does not, the
 * reply carries what chrony and ntpd give an undisciplined local clock (stratum 10): guests agree with their host, and
 * any better source wins.
 */
import {
  emitNtp,
  NTP_LEN,
  NTP_MODE_CLIENT,
  NTP_MODE_SERVER,
  ntpShort,
  ntpTimestamp,
  parseNtp,
} from '../wire/ntp.ts';

/** What is known about the host's clock at one moment. */
export interface ClockQuality {
  /** False: nothing disciplines the host's clock, or nothing is known. */
  synchronised: boolean;
  /** Bound of its error against true time (the kernel's maxerror). */
  errorMaxMs: number;
}

/** How the server is made. */
export interface NtpServerOptions {
  /** Wall time in milliseconds since the Unix epoch, fractions welcome. */
  wallMs: () => number;
  quality: () => ClockQuality;
  /** Reference identifier: an IPv4 address by which clients find loops (RFC 5905 section 7.3). The host's loopback is usual. */
  referenceId: number;
}

/** A public server is at stratum 2, the host at 3. */
const STRATUM_SYNCHRONISED = 4;
const STRATUM_LOCAL = 10;
/** log2 seconds: the wall clock is read in milliseconds. */
const PRECISION = -10;
/** Requests of versions 1 to 4 are answered in their own version (RFC 5905 section 7.3). */
const VERSION_MAX = 4;
const QUALITY_UNKNOWN_MS = 10;

/** The server. */
export class NtpServer {
  readonly #options: NtpServerOptions;
  readonly counters: Record<string, number> = { ntp_received: 0, ntp_answered: 0, ntp_ignored: 0 };

  constructor(options: NtpServerOptions) {
    this.#options = options;
  }

  /** Takes the request in `buf[off..end)`; the reply goes to where it came from. */
  receive(buf: Uint8Array, off: number, end: number): Uint8Array | undefined {
    this.counters.ntp_received!++;
    const request = parseNtp(buf, off, end);
    // Only mode 3: an answer to any other mode could be answered in turn, without end.
    if (request?.mode !== NTP_MODE_CLIENT || request.version < 1 || request.version > VERSION_MAX) {
      this.counters.ntp_ignored!++;
      return undefined;
    }
    const now = ntpTimestamp(this.#options.wallMs());
    const { synchronised, errorMaxMs } = this.#options.quality();
    const reply = new Uint8Array(NTP_LEN);
    emitNtp(
      {
        leap: 0,
        version: request.version,
        mode: NTP_MODE_SERVER,
        stratum: synchronised ? STRATUM_SYNCHRONISED : STRATUM_LOCAL,
        poll: request.poll,
        precision: PRECISION,
        rootDelay: 0,
        rootDispersion: ntpShort(synchronised ? errorMaxMs : QUALITY_UNKNOWN_MS),
        referenceId: this.#options.referenceId,
        // The host's clock is read for each reply: it was last right as of now.
        reference: { seconds: now.seconds, fraction: 0 },
        origin: request.transmit,
        receive: now,
        transmit: now,
      },
      reply,
      0,
    );
    this.counters.ntp_answered!++;
    return reply;
  }
}
