/** The socket of names: its messages byte by byte, a client's talk, and the thread's loop over a double of Darwin's calls. */
import { openSync, readdirSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { STRUCTS } from '#common/native/darwin/abi';
import { Kqueue } from '#common/native/darwin/kqueue';
import { LocalSockets } from '#common/native/darwin/local-sockets';
import { DarwinDouble } from '../../../test/support/darwin-library.ts';
import { type NamesCommand, NamesLoop, type NamesReport } from './loop.ts';
import { namesServer } from './server.ts';
import { QUESTIONS_MAX, Session } from './session.ts';
import { ERROR, emitAnswers, HEADER_LEN, OP, parseHeader, type Question } from './wire.ts';

const CONTEXT = 0x0000_0007_0000_0001n;
const A = 1;
const AAAA = 28;

/** A message as the client's stub makes it. @param shared with the empty string of those that share a connection */
function message(op: number, data: Buffer, { shared = false, context = CONTEXT } = {}): Buffer {
  const body = shared ? Buffer.concat([Buffer.alloc(1), data]) : data;
  const header = Buffer.alloc(HEADER_LEN);
  header.writeUInt32BE(1, 0);
  header.writeUInt32BE(body.length, 4);
  header.writeUInt32BE(op, 12);
  header.writeBigUInt64BE(context, 16);
  return Buffer.concat([header, body]);
}

function queryData(name: string, type: number): Buffer {
  return Buffer.concat([Buffer.alloc(8), Buffer.from(`${name}\0`), Buffer.from([0, type, 0, 1])]);
}

const question = (op: Question['op'], types: number[], asked: number): Question => ({
  ...{ op, context: CONTEXT, name: 'web', types, asked },
});

describe('messages of look-ups', () => {
  it('are answered in the form that the client reads', () => {
    // Version, length, flags, reply, context, index; flags, interface, error; name, type, class, length, address, TTL.
    const expected = [
      ...['00000001', '0000001f', '00000000', '00000044', '0000000700000001', '00000000'],
      ...['00000002', '00000000', '00000000', '7765622e00', '0001', '0001', '0004', 'ac11fffe', '00000005'],
    ].join('');
    const bytes = emitAnswers(question(OP.query, [A], A), ['172.17.255.254', 'fd00::1'], 5);
    expect(bytes.toString('hex')).toBe(expected);
  });

  it('have the addresses that were asked for, all but the last with more to come', () => {
    const bytes = emitAnswers(question(OP.addressInfo, [A, AAAA], A), ['10.0.0.1', 'fe80::1:2'], 5);
    const first = parseHeader(bytes)!;
    const second = bytes.subarray(HEADER_LEN + first.dataLen);
    expect([bytes.readUInt32BE(12), bytes.readUInt32BE(HEADER_LEN)]).toEqual([72, 3]);
    expect(second.readUInt32BE(HEADER_LEN)).toBe(2);
    expect(second.subarray(-20, -4).toString('hex')).toBe('fe800000000000000000000000010002');
    const none = emitAnswers(question(OP.query, [AAAA], AAAA), ['10.0.0.1'], 5);
    expect(none.readInt32BE(HEADER_LEN + 8)).toBe(ERROR.noSuchRecord);
  });
});

describe('a client', () => {
  it('that shares its connection hears of each question on a socket of its own', () => {
    const session = new Session();
    const said = (bytes: Buffer, descriptors: number[] = []) => session.receive(bytes, descriptors);
    const taken = { replies: [{ fd: undefined, bytes: Buffer.alloc(4) }], questions: [], broken: false };
    expect(said(message(OP.connection, Buffer.alloc(0)))).toEqual(taken);
    const asking = message(OP.query, queryData('web.', A), { shared: true });
    expect(said(asking.subarray(0, -1))).toEqual({ ...taken, replies: [] });
    const { replies, questions } = said(asking.subarray(-1), [33]);
    expect(replies).toEqual([{ fd: 33, bytes: Buffer.alloc(4) }]);
    expect(questions).toEqual([{ ...question(OP.query, [A], A), name: 'web.' }]);
    expect(session.answer(questions[0]!, ['10.0.0.1'])).toBeDefined();
    said(message(OP.cancel, Buffer.alloc(0)));
    expect(session.answer(questions[0]!, ['10.0.0.1'])).toBeUndefined();
  });

  it('is refused what is not known here, and too many questions', () => {
    const session = new Session();
    const code = (bytes: Buffer): number => session.receive(bytes, []).replies[0]!.bytes.readInt32BE();
    expect(code(message(5, Buffer.from('browse\0')))).toBe(ERROR.unsupported);
    expect(code(message(OP.query, Buffer.from('no end')))).toBe(ERROR.badParameter);
    for (let index = 0; index < QUESTIONS_MAX; index++)
      expect(code(message(OP.query, queryData('a', A), { context: BigInt(index) }))).toBe(0);
    expect(code(message(OP.query, queryData('a', A), { context: 99n }))).toBe(ERROR.badParameter);
    expect(session.receive(Buffer.alloc(HEADER_LEN), []).broken).toBe(true);
  });

  it('can send what it likes: nothing throws, and every descriptor is given back or kept', () => {
    const valid = message(OP.query, queryData('web', A), { shared: true });
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 80 }),
      fc.nat(valid.length).map((length) => valid.subarray(0, length)),
      fc.constant(valid),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(piece, fc.nat(2)), { maxLength: 20 }), (pieces) => {
        const session = new Session();
        let next = 100;
        const back: number[] = [];
        for (const [bytes, count] of pieces) {
          const descriptors = Array.from({ length: count }, () => next++);
          const { replies, broken } = session.receive(bytes, descriptors);
          back.push(...replies.flatMap(({ fd }) => fd ?? []));
          if (broken) break;
        }
        back.push(...session.abandoned());
        expect(back.toSorted((a, b) => a - b)).toEqual(Array.from({ length: next - 100 }, (_, i) => 100 + i));
      }),
    );
  });
});

const { fields: EVENT, size: EVENT_LEN } = STRUCTS['struct kevent'];

/** A loop whose kernel says what it is told to. */
function world(): { double: DarwinDouble; loop: NamesLoop; reports: NamesReport[]; ready(fd: number): void } {
  const double = new DarwinDouble();
  double.errnoValue = 35;
  const reports: NamesReport[] = [];
  const loop = new NamesLoop(new LocalSockets(double), new Kqueue(8, double), (report) =>
    reports.push(report),
  );
  const ready = (fd: number): void => {
    const event = Buffer.alloc(EVENT_LEN);
    event.writeBigUInt64LE(BigInt(fd), EVENT.ident);
    event.writeInt16LE(-1, EVENT.filter);
    double.events.push(event);
    loop.turn();
  };
  return { double, loop, reports, ready };
}

/** The descriptor that the last call of a name was given, or has answered. */
const lastOf = (double: DarwinDouble, name: string): number =>
  Number(double.calls.findLast((call) => call.startsWith(`${name} `))!.split(' ')[1]);

describe('the thread of names', () => {
  it('listens, takes a question with its socket, answers, and leaves nothing open', () => {
    const before = readdirSync('/proc/self/fd').length;
    const { double, loop, reports, ready } = world();
    loop.obey({ listen: 1, path: '/private/var/run/drydock/names/a' });
    expect(reports).toEqual([{ listening: 1 }]);
    const bound = double.calls.find((call) => call.startsWith('bind'))!;
    expect(bound).toMatch(new RegExp(`<6a01${Buffer.from('/private/var/run').toString('hex')}.*> 106$`));
    const listener = lastOf(double, 'listen');
    ready(listener);
    const client = lastOf(double, 'fcntl');
    const errors = openSync('/dev/null', 'r+');
    double.incoming.push({
      bytes: message(OP.query, queryData('web', A), { shared: true }),
      descriptors: [errors],
    });
    ready(client);
    expect(lastOf(double, 'close')).toBe(errors);
    const [, asked] = reports as [NamesReport, Extract<NamesReport, { asking: number }>];
    expect(asked).toMatchObject({ asking: 1, question: { name: 'web', types: [A] } });
    loop.obey({ answered: asked.client, question: asked.question, addresses: ['10.0.0.1'] });
    expect(lastOf(double, 'write')).toBe(client);
    expect(double.written.map((bytes) => bytes.length)).toEqual([4, HEADER_LEN + 31]);
    double.incoming.push({ bytes: new Uint8Array(), descriptors: [] });
    ready(client);
    expect(lastOf(double, 'close')).toBe(client);
    loop.obey({ unlisten: 1 });
    expect(lastOf(double, 'close')).toBe(listener);
    // The queue itself lives as long as the thread.
    expect(readdirSync('/proc/self/fd').length).toBe(before + 1);
  });

  it('tells why it cannot listen, whichever call fails', () => {
    for (let failing = 1; ; failing++) {
      const before = readdirSync('/proc/self/fd').length;
      const { double, loop, reports } = world();
      double.failing = failing;
      loop.obey({ listen: 1, path: '/names' });
      if (double.calls.length <= failing) break;
      expect(reports, double.calls[failing]).toMatchObject([
        { listening: 1, error: expect.stringContaining('SyscallError') },
      ]);
      expect(readdirSync('/proc/self/fd').length, double.calls[failing]).toBe(before + 1);
    }
  });

  it('is started for the first jail and ended with the last, and names that fail have no record', async () => {
    const commands: NamesCommand[] = [];
    let told: (report: NamesReport) => void = () => {};
    let ended = 0;
    const serve = namesServer((tell) => {
      told = tell;
      const post = (command: NamesCommand): void => {
        commands.push(command);
        if ('listen' in command)
          tell({ listening: command.listen, ...(command.path === '/bad' && { error: 'EACCES' }) });
      };
      return { post, end: async () => void ended++ };
    });
    await expect(serve('/bad', async () => [])).rejects.toThrow('EACCES');
    expect(ended).toBe(1);
    const names = await serve('/good', async (name) => {
      if (name === 'web') return ['10.0.0.1'];
      throw new Error('no such name');
    });
    const ask = async (name: string): Promise<NamesCommand> => {
      told({ asking: 2, client: 5, question: { ...question(OP.query, [A], A), name } });
      await Promise.resolve();
      await Promise.resolve();
      return commands.at(-1)!;
    };
    expect(await ask('web.')).toMatchObject({ answered: 5, addresses: ['10.0.0.1'] });
    expect(await ask('nobody')).toMatchObject({ answered: 5, addresses: [] });
    await names.close();
    expect([commands.at(-1), ended]).toEqual([{ unlisten: 2 }, 2]);
  });
});
