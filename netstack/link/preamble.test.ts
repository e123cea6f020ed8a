import { describe, expect, test } from 'vitest';
import { parseIpv4, parseMac } from '../wire/address.ts';
import { type VmnetRegistry, vmnetPreamble } from './preamble.ts';

const MAC = parseMac('02:50:00:00:00:01')!;
const UUID = '0123abcd-0000-4000-8000-00000000cafe';

function init(version = 22): Buffer {
  const bytes = Buffer.alloc(49, 'c');
  bytes.write('VMN3T', 0, 'latin1');
  bytes.writeUInt32LE(version, 5);
  return bytes;
}

function command(type: number, uuid: string, tail = Buffer.alloc(4)): Buffer {
  return Buffer.concat([Buffer.of(type), Buffer.from(uuid.padEnd(36, '\0'), 'latin1'), tail]);
}

/** Feeds a whole conversation and returns what was answered and how it ended. */
function converse(bytes: Buffer, registry: VmnetRegistry, step = bytes.length) {
  const preamble = vmnetPreamble(registry, 1500);
  let answer = Buffer.alloc(0);
  let consumed = 0;
  for (let end = step; ; end += step) {
    const limit = Math.min(end, bytes.length);
    for (;;) {
      const outcome = preamble.receive(bytes, consumed, limit);
      consumed += outcome.consumed;
      if (outcome.reply) answer = Buffer.concat([answer, outcome.reply]);
      if (outcome.state !== 'more') return { ...outcome, answer, consumed };
      if (outcome.consumed === 0) break;
    }
    if (limit === bytes.length) return { state: 'more', answer, consumed };
  }
}

const admits: VmnetRegistry = { admit: () => MAC };

describe('the VMN3T handshake', () => {
  test.each([1, 7, 49, 90])('answers init and interface, fed %i bytes at a time', (step) => {
    const frames = Buffer.from('frames follow');
    const { state, answer, consumed } = converse(
      Buffer.concat([init(), command(1, UUID), frames]),
      admits,
      step,
    );
    expect([state, consumed, answer.length]).toEqual(['done', 90, 49 + 258]);
    expect(answer.toString('latin1', 0, 5)).toBe('VMN3T');
    expect(answer.readUInt32LE(5)).toBe(22);
    const vif = answer.subarray(49);
    expect([vif[0], vif.readUInt16LE(1), vif.readUInt16LE(3)]).toEqual([1, 1500, 1550]);
    expect(vif.toString('hex', 5, 11)).toBe('025000000001');
  });

  test('passes uuid and preferred address on; no uuid is an empty one', () => {
    const seen: unknown[] = [];
    const registry: VmnetRegistry = {
      admit: (uuid, preferred) => {
        seen.push([uuid, preferred]);
        return MAC;
      },
    };
    // 192.168.65.10 as the number 0xc0a8410a, least significant byte first.
    converse(Buffer.concat([init(), command(8, UUID, Buffer.of(0x0a, 0x41, 0xa8, 0xc0))]), registry);
    converse(Buffer.concat([init(), command(1, '')]), registry);
    expect(seen).toEqual([
      [UUID, parseIpv4('192.168.65.10')],
      ['', undefined],
    ]);
  });

  test('refuses by name what it does not do, and says why a machine may not join', () => {
    const bind = converse(Buffer.concat([init(), command(6, '')]), admits);
    expect(bind.state).toBe('refused');
    expect(bind.answer[49]).toBe(2);
    expect(bind.answer.toString('latin1', 51, 51 + bind.answer[50]!)).toBe('Unsupported command Bind_ipv4');
    const full = converse(Buffer.concat([init(), command(1, UUID)]), { admit: () => 'taken' });
    expect(full.answer.toString('latin1', 51, 51 + full.answer[50]!)).toBe('taken');
  });

  test('another version is answered with ours and ended; another protocol is ended', () => {
    const old = converse(init(21), admits);
    expect([old.state, old.answer.length]).toEqual(['refused', 49]);
    expect(converse(Buffer.alloc(49, 'x'), admits)).toMatchObject({
      state: 'refused',
      answer: Buffer.alloc(0),
    });
  });
});
