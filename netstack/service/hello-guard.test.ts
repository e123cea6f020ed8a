import { beforeEach, describe, expect, test } from 'vitest';
import type { HostStream } from '../flow/host.ts';
import { CLIENT_HELLO_BYTES_MAX } from '../wire/tls.ts';
import { GuardedStream } from './hello-guard.ts';

const bytes = (text: string): Uint8Array => Uint8Array.from(text, (char) => char.charCodeAt(0));

let written: string;
let room: number;
let calls: string[];
let told: string[];
let later: (() => void)[];
let asked: (string | undefined)[];
let allowed: boolean;
let guarded: GuardedStream;

beforeEach(() => {
  [written, room, calls, told, later, asked, allowed] = ['', Number.POSITIVE_INFINITY, [], [], [], [], true];
  const inner: HostStream = {
    read: () => 0,
    write: (buf, off, len) => {
      const taken = Math.min(len, room);
      room -= taken;
      written += String.fromCharCode(...buf.subarray(off, off + taken));
      return taken;
    },
    shutdown: () => void calls.push('shutdown'),
    reset: () => void calls.push('reset'),
    close: () => void calls.push('close'),
  };
  guarded = new GuardedStream(
    {
      connected: () => void told.push('connected'),
      readable: () => void told.push('readable'),
      writable: () => void told.push('writable'),
      failed: (error) => void told.push(error),
    },
    {
      allows: (name) => {
        asked.push(name);
        return allowed;
      },
      defer: (call) => void later.push(call),
    },
  );
  guarded.attach(inner);
});

const write = (text: string): number => guarded.write(bytes(text), 0, text.length);
const turn = (): void => {
  for (const call of later.splice(0)) call();
};

describe('a guarded connection', () => {
  test('that is allowed goes on with every byte in its order', () => {
    expect(write('\x16\x03')).toBe(2);
    expect(written).toBe('');
    expect(write('\x01\x00\x04\x02\x00\x00\x00')).toBe(7);
    expect(asked).toEqual([undefined]);
    expect(written).toBe('\x16\x03\x01\x00\x04\x02\x00\x00\x00');
    expect(write('more')).toBe(4);
    expect(written).toMatch(/more$/);
    expect(asked).toHaveLength(1);
  });

  test('that is denied is reset, and told so at the next turn', () => {
    allowed = false;
    write('GET / HTTP/1.1');
    expect(calls).toEqual(['reset']);
    expect(told).toEqual([]);
    expect(write('more')).toBe(0);
    guarded.close();
    turn();
    expect(told).toEqual(['ECONNRESET']);
    expect(written).toBe('');
    expect(calls).toEqual(['reset']);
  });

  test('whose socket takes little goes on piece by piece', () => {
    room = 3;
    expect(write('hello')).toBe(5);
    expect(written).toBe('hel');
    expect(write('world')).toBe(0);
    room = 100;
    guarded.writable();
    expect(written).toBe('hello');
    expect(told).toEqual(['writable']);
    expect(write('world')).toBe(5);
    expect(written).toBe('helloworld');
  });

  test('that ends before it has said whom it wants is decided without a name, and its end goes on', () => {
    write('\x16\x03');
    guarded.shutdown();
    expect(asked).toEqual([undefined]);
    expect(written).toBe('\x16\x03');
    expect(calls).toEqual(['shutdown']);
  });

  test('that never ends its hello is decided at the limit', () => {
    const endless = new Uint8Array(CLIENT_HELLO_BYTES_MAX + 100);
    endless.set([22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xf0]);
    let taken = 0;
    while (asked.length === 0) taken += guarded.write(endless, taken, Math.min(1000, endless.length - taken));
    expect(taken).toBeLessThanOrEqual(CLIENT_HELLO_BYTES_MAX);
    expect(written).toHaveLength(taken);
  });

  test('hears what the server says first', () => {
    guarded.connected();
    guarded.readable();
    expect(told).toEqual(['connected', 'readable']);
  });
});
