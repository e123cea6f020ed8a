import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseIpv4 } from './address.ts';
import {
  BOOT_REPLY,
  BOOT_REQUEST,
  classlessRoutesOption,
  clientFqdnOption,
  DHCP_OPTION,
  type DhcpMessage,
  domainSearchOption,
  encodeDhcp,
  parseDhcp,
  readClientFqdn,
  readText,
  uint32Option,
} from './dhcp.ts';

const ip = (text: string): number => parseIpv4(text)!;

/** A DISCOVER as busybox's udhcpc 1.35 sends it, byte for byte up to the padding. */
function discover(): Uint8Array {
  const bytes = new Uint8Array(300);
  bytes.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 5, 0x80, 0]);
  bytes.set([0x02, 0x42, 0xac, 0x11, 0x00, 0x02], 28);
  bytes.set([0x63, 0x82, 0x53, 0x63], 236);
  bytes.set(
    [
      53, 1, 1, 61, 7, 1, 2, 0x42, 0xac, 0x11, 0, 2, 57, 2, 2, 0x40, 55, 4, 1, 3, 6, 12, 60, 3, 0x75, 0x64,
      0x68, 255,
    ],
    240,
  );
  return bytes;
}

const blank: DhcpMessage = {
  op: BOOT_REPLY,
  hardwareType: 1,
  hops: 0,
  transactionId: 0x01020304,
  seconds: 0,
  flags: 0,
  clientAddress: 0,
  yourAddress: ip('192.0.2.2'),
  nextServer: 0,
  relayAddress: 0,
  hardwareAddress: Uint8Array.of(2, 0x42, 0xac, 0x11, 0, 2),
  options: new Map(),
};

describe('messages', () => {
  test('a DISCOVER is read in full', () => {
    const message = parseDhcp(discover(), 0, 300)!;
    expect(message).toMatchObject({
      op: BOOT_REQUEST,
      hardwareType: 1,
      transactionId: 0xdeadbeef,
      seconds: 5,
      flags: 0x8000,
      hardwareAddress: Uint8Array.of(2, 0x42, 0xac, 0x11, 0, 2),
    });
    expect([...message.options.keys()]).toEqual([53, 61, 57, 55, 60]);
    expect([...message.options.get(DHCP_OPTION.parameterList)!]).toEqual([1, 3, 6, 12]);
  });

  test('a reply is these bytes', () => {
    const bytes = encodeDhcp({
      ...blank,
      options: new Map([
        [DHCP_OPTION.messageType as number, Uint8Array.of(2)],
        [DHCP_OPTION.router, uint32Option(ip('192.0.2.1'))],
      ]),
    });
    expect(bytes).toHaveLength(300);
    expect([...bytes.subarray(0, 34)]).toEqual([
      2, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x42, 0xac,
      0x11, 0, 2,
    ]);
    expect([...bytes.subarray(236, 251)]).toEqual([
      0x63, 0x82, 0x53, 0x63, 53, 1, 2, 3, 4, 192, 0, 2, 1, 255, 0,
    ]);
  });

  test.each([
    ['shorter than its fixed part', (m: Uint8Array) => m.slice(0, 239)],
    ['without the cookie', (m: Uint8Array) => m.fill(0, 236, 240)],
    ['of another op', (m: Uint8Array) => m.fill(3, 0, 1)],
    ['with a hardware address longer than its field', (m: Uint8Array) => m.fill(17, 2, 3)],
    ['with an option that runs out of the packet', (m: Uint8Array) => m.fill(1, 240, 298).fill(99, 298)],
  ])('a message %s is none', (_, spoil) => {
    const bytes = spoil(discover());
    expect(parseDhcp(bytes, 0, bytes.length)).toBeUndefined();
  });

  test('RFC 2132 9.3: options go on in file and then in sname when they are overloaded', () => {
    const bytes = discover();
    bytes.set([DHCP_OPTION.overload, 1, 3, 255], 240);
    bytes.set([DHCP_OPTION.messageType, 1, 1, DHCP_OPTION.hostName, 1, 0x61, 255], 108);
    bytes.set([DHCP_OPTION.hostName, 1, 0x62, 255], 44);
    const { options } = parseDhcp(bytes, 0, bytes.length)!;
    expect(options.get(DHCP_OPTION.messageType)).toEqual(Uint8Array.of(1));
    expect(readText(options.get(DHCP_OPTION.hostName))).toBe('ab');
    expect(options.has(DHCP_OPTION.overload)).toBe(false);
  });

  test('RFC 3396: an option of 600 bytes is cut, and joined again', () => {
    const long = Uint8Array.from({ length: 600 }, (_, i) => i);
    const bytes = encodeDhcp(
      { ...blank, options: new Map([[DHCP_OPTION.classlessRoutes as number, long]]) },
      1400,
    );
    expect(parseDhcp(bytes, 0, bytes.length)!.options.get(DHCP_OPTION.classlessRoutes)).toEqual(long);
  });

  test("RFC 3046 2.2: the relay's option is last, also when others have to give way", () => {
    const relay = Uint8Array.of(1, 2, 0xab, 0xcd);
    const bytes = encodeDhcp(
      {
        ...blank,
        options: new Map([
          [DHCP_OPTION.relayAgent as number, relay],
          [DHCP_OPTION.messageType, Uint8Array.of(5)],
          [DHCP_OPTION.domainSearch, new Uint8Array(250)],
          [DHCP_OPTION.domainName, new Uint8Array(100)],
        ]),
      },
      548,
    );
    const { options } = parseDhcp(bytes, 0, bytes.length)!;
    expect([...options.keys()]).toEqual([53, 119, 82]);
    expect(bytes.length).toBeLessThanOrEqual(548);
  });

  test('no bytes make the parser throw, and what is encoded is read back the same', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (tail, plain) => {
        const bytes = plain ? tail : Uint8Array.from([...discover().subarray(0, 240), ...tail]);
        parseDhcp(bytes, 0, bytes.length);
      }),
    );
    const option = fc.tuple(fc.integer({ min: 1, max: 254 }), fc.uint8Array({ maxLength: 300 }));
    fc.assert(
      fc.property(fc.array(option, { maxLength: 3 }), (list) => {
        const options = new Map(list.filter(([code]) => code !== DHCP_OPTION.overload));
        const relay = options.get(DHCP_OPTION.relayAgent);
        const bytes = encodeDhcp({ ...blank, options }, 1472);
        const parsed = parseDhcp(bytes, 0, bytes.length)!;
        expect(parsed.options).toEqual(options);
        if (relay) expect([...parsed.options.keys()].at(-1)).toBe(DHCP_OPTION.relayAgent);
      }),
    );
  });
});

describe('options', () => {
  test('RFC 3442 page 4: a route has only the significant bytes of its network', () => {
    const router = ip('10.0.0.1');
    expect([
      ...classlessRoutesOption([
        { network: 0, prefixLength: 0, router },
        { network: ip('10.17.0.0'), prefixLength: 16, router },
        { network: ip('10.229.0.128'), prefixLength: 25, router },
      ]),
    ]).toEqual([0, 10, 0, 0, 1, 16, 10, 17, 10, 0, 0, 1, 25, 10, 229, 0, 128, 10, 0, 0, 1]);
  });

  test('RFC 3397: search domains are names in wire form, one after the other', () => {
    expect([...domainSearchOption(['a.bc', 'd'])]).toEqual([1, 97, 2, 98, 99, 0, 1, 100, 0]);
  });

  test("RFC 4702: a full name is read in ASCII and in wire form, and answered in the asker's form", () => {
    const ascii = readClientFqdn(Uint8Array.from([1, 0, 0, 0x70, 0x63]))!;
    expect(ascii).toEqual({ serverUpdates: true, noUpdate: false, wireForm: false, name: 'pc' });
    const wire = readClientFqdn(Uint8Array.from([4, 0, 0, 2, 0x70, 0x63, 1, 0x78, 0]))!;
    expect(wire).toEqual({ serverUpdates: false, noUpdate: false, wireForm: true, name: 'pc.x' });
    expect([...clientFqdnOption(ascii, true, 'pc.x')]).toEqual([1, 255, 255, 0x70, 0x63, 0x2e, 0x78]);
    expect([...clientFqdnOption(wire, true, 'pc')]).toEqual([1 | 2 | 4, 255, 255, 2, 0x70, 0x63, 0]);
    expect(readClientFqdn(Uint8Array.from([4, 0, 0, 9, 0x70]))).toBeUndefined();
    expect(readClientFqdn(Uint8Array.from([0, 0]))).toBeUndefined();
  });

  test('text that is no ASCII is none; trailing NULs are not part of it', () => {
    expect(readText(Uint8Array.of(0x61, 0, 0))).toBe('a');
    expect(readText(Uint8Array.of(0x61, 0x0a))).toBeUndefined();
    expect(readText(Uint8Array.of(0xe9))).toBeUndefined();
  });
});
