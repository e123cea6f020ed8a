import fc from 'fast-check';
import { expect, test } from 'vitest';
import { emitNtp, NTP_LEN, ntpShort, ntpTimestamp, parseNtp } from './ntp.ts';

/** A client's request of version 4 as sntp sends it. */
const REQUEST = Uint8Array.from([
  0x23, 0, 6, 0xe9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0xec, 0xb1, 0x5b, 0xd0, 0x80, 0, 0, 1,
]);

test('a request is read field by field', () => {
  expect(parseNtp(REQUEST, 0, NTP_LEN)).toMatchObject({
    leap: 0,
    version: 4,
    mode: 3,
    poll: 6,
    precision: -23,
    transmit: { seconds: 0xecb15bd0, fraction: 0x80000001 },
  });
  expect(parseNtp(REQUEST, 1, NTP_LEN)).toBeUndefined();
});

test('RFC 5905 6: the Unix epoch is 2208988800 s after 1900, and era 1 begins in 2036', () => {
  expect(ntpTimestamp(0)).toEqual({ seconds: 2_208_988_800, fraction: 0 });
  expect(ntpTimestamp(500)).toEqual({ seconds: 2_208_988_800, fraction: 0x8000_0000 });
  expect(ntpTimestamp(Date.UTC(2036, 1, 7, 6, 28, 16))).toEqual({ seconds: 0, fraction: 0 });
});

test('the short format is in units of 2^-16 s and saturates', () => {
  expect(ntpShort(1000)).toBe(0x1_0000);
  expect(ntpShort(-1)).toBe(0);
  expect(ntpShort(1e12)).toBe(0xffff_ffff);
});

test('what is parsed is emitted as the same bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: NTP_LEN, maxLength: NTP_LEN }), (bytes) => {
      const out = new Uint8Array(NTP_LEN);
      expect(emitNtp(parseNtp(bytes, 0, NTP_LEN)!, out, 0)).toBe(NTP_LEN);
      expect(out).toEqual(bytes);
    }),
  );
});
