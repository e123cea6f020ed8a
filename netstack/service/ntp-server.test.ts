import { describe, expect, test } from 'vitest';
import { emitNtp, NTP_LEN, type NtpPacket, parseNtp } from '../wire/ntp.ts';
import { type ClockQuality, NtpServer } from './ntp-server.ts';

const T2026 = Date.UTC(2026, 10, 24, 6, 0, 0, 250);

function ask(quality: ClockQuality, more: Partial<NtpPacket> = {}): NtpPacket | undefined {
  const zero = { seconds: 0, fraction: 0 };
  const bytes = new Uint8Array(NTP_LEN);
  emitNtp(
    {
      leap: 3,
      version: 4,
      mode: 3,
      stratum: 0,
      poll: 6,
      precision: -20,
      rootDelay: 0,
      rootDispersion: 0,
      referenceId: 0,
      reference: zero,
      origin: zero,
      receive: zero,
      transmit: { seconds: 0xdead, fraction: 0xbeef },
      ...more,
    },
    bytes,
    0,
  );
  const server = new NtpServer({ wallMs: () => T2026, quality: () => quality, referenceId: 0x7f000001 });
  const reply = server.receive(bytes, 0, bytes.length);
  return reply && parseNtp(reply, 0, reply.length);
}

const GOOD: ClockQuality = { synchronised: true, errorMaxMs: 250 };

describe('RFC 5905 9.2: a reply to a client', () => {
  test("has mode 4, the request's transmit time as origin, and the host's time", () => {
    const reply = ask(GOOD)!;
    expect(reply).toMatchObject({
      leap: 0,
      mode: 4,
      version: 4,
      poll: 6,
      origin: { seconds: 0xdead, fraction: 0xbeef },
    });
    expect(reply.receive.seconds).toBe(T2026 / 1000 + 2_208_988_800 - 0.25);
    expect(reply.receive.fraction).toBe(0x4000_0000);
    expect(reply.transmit).toEqual(reply.receive);
    expect(reply.reference.seconds).toBeLessThanOrEqual(reply.receive.seconds);
  });

  test("tells the host's error as root dispersion", () => {
    expect(ask(GOOD)).toMatchObject({ stratum: 4, rootDispersion: 0x4000 });
  });

  test("has a local clock's stratum when nothing disciplines the host's clock", () => {
    expect(ask({ synchronised: false, errorMaxMs: 0 })).toMatchObject({ stratum: 10, leap: 0 });
  });

  test.each([1, 2, 3, 4])('has the version of the request: %i', (version) => {
    expect(ask(GOOD, { version })!.version).toBe(version);
  });

  test.each([0, 1, 2, 4, 5, 6, 7])('is not given to mode %i', (mode) => {
    expect(ask(GOOD, { mode })).toBeUndefined();
  });

  test('is not given to version 0 or 5', () => {
    expect(ask(GOOD, { version: 0 })).toBeUndefined();
    expect(ask(GOOD, { version: 5 })).toBeUndefined();
  });
});
