/** The table, the timers and the list by age against plain models of them. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seededRng } from '#common/rng';
import { mapped } from '../wire/address.ts';
import { type Aged, AgeList } from './age-list.ts';
import { Guests } from './guests.ts';
import { type Entry, NO_ADDRESS, Table } from './table.ts';
import { type Timed, Timers } from './timers.ts';

class Row implements Entry {
  readonly near: Uint8Array;
  readonly nearPort: number;
  readonly far: Uint8Array;
  readonly farPort: number;
  nextInBucket: Entry | undefined;

  constructor(near: number, nearPort: number, far: number, farPort: number) {
    this.near = mapped(near);
    this.nearPort = nearPort;
    this.far = mapped(far);
    this.farPort = farPort;
  }

  get key(): string {
    return `${this.near} ${this.nearPort} ${this.far} ${this.farPort}`;
  }
}

describe('the table', () => {
  it('finds what a map finds, through growth and shrinking', () => {
    const field = fc.nat(7);
    const step = fc.tuple(fc.boolean(), field, field, field, field);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 600 }), fc.nat(), (steps, seed) => {
        const table = new Table<Row>(seededRng(seed));
        const model = new Map<string, Row>();
        for (const [add, near, nearPort, far, farPort] of steps) {
          const row = new Row(near, nearPort, far, farPort);
          const known = model.get(row.key);
          expect(table.find(row.near, 0, nearPort, row.far, 0, farPort)).toBe(known);
          if (add && !known) {
            table.add(row);
            model.set(row.key, row);
          } else if (!add) {
            expect(table.remove(known ?? row)).toBe(known !== undefined);
            model.delete(row.key);
          }
          expect(table.size).toBe(model.size);
        }
        expect(new Set(table)).toEqual(new Set(model.values()));
      }),
    );
  });

  it('spreads addresses and ports that count up, whatever the seed', () => {
    for (const seed of [1, 2, 3]) {
      const table = new Table<Row>(seededRng(seed));
      for (let i = 0; i < 20_000; i++) table.add(new Row(0x0a000000 + (i & 255), i >> 8, 0x08080808, 53));
      // A look-up walks few entries: chains of a table that is at most full have a few members.
      let longest = 0;
      for (const row of table) {
        let length = 1;
        for (let next = row.nextInBucket; next; next = next.nextInBucket) length += 1;
        longest = Math.max(longest, length);
      }
      expect(longest).toBeLessThan(12);
    }
  });

  it('reads keys at an offset', () => {
    const table = new Table<Row>(seededRng(1));
    const row = new Row(1, 2, 3, 4);
    table.add(row);
    const packet = new Uint8Array(50);
    packet.set(row.near, 5);
    packet.set(row.far, 29);
    expect(table.find(packet, 5, 2, packet, 29, 4)).toBe(row);
    expect(table.find(packet, 5, 2)).toBeUndefined();
    expect(table.find(NO_ADDRESS, 0, 2)).toBeUndefined();
  });
});

class Alarm implements Timed {
  dueAt: number = Number.POSITIVE_INFINITY;
  heapIndex = -1;
  heapAt = 0;
}

describe('the timers', () => {
  it('give what is due, and nothing else, in any order of scheduling, postponing and cancelling', () => {
    const step = fc.record({
      alarm: fc.nat(9),
      action: fc.constantFrom('at', 'never', 'cancel', 'pass'),
      ms: fc.nat(50),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const timers = new Timers<Alarm>();
        const alarms = Array.from({ length: 10 }, () => new Alarm());
        let now = 0;
        for (const { alarm, action, ms } of steps) {
          const item = alarms[alarm]!;
          if (action === 'at') timers.schedule(item, now + ms);
          else if (action === 'never') timers.schedule(item, Number.POSITIVE_INFINITY);
          else if (action === 'cancel') timers.cancel(item);
          else {
            now += ms;
            const expected = new Set(alarms.filter((each) => each.dueAt <= now));
            const given = new Set<Alarm>();
            for (let due = timers.pop(now); due; due = timers.pop(now)) given.add(due);
            expect(given).toEqual(expected);
          }
          const next = Math.min(...alarms.map((each) => each.dueAt));
          expect(timers.nextAt()).toBeLessThanOrEqual(next);
        }
      }),
    );
  });

  it('look at a postponed item only when its old time has come', () => {
    const timers = new Timers<Alarm>();
    const item = new Alarm();
    timers.schedule(item, 100);
    timers.schedule(item, 500);
    expect(timers.nextAt()).toBe(100);
    expect(timers.pop(100)).toBeUndefined();
    expect(timers.nextAt()).toBe(500);
    expect(timers.pop(500)).toBe(item);
    expect(timers.size).toBe(0);
  });
});

it('the list by age keeps the order of last use', () => {
  const item = (): Aged => ({ older: undefined, newer: undefined });
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(5), fc.boolean()), { maxLength: 100 }), (steps) => {
      const list = new AgeList<Aged>();
      const items = Array.from({ length: 6 }, item);
      let model: Aged[] = [];
      for (const [index, use] of steps) {
        const each = items[index]!;
        const known = model.includes(each);
        if (use && known) list.touch(each);
        else if (use) list.add(each);
        else if (known) list.remove(each);
        model = model.filter((other) => other !== each);
        if (use) model.push(each);
        expect(list.size).toBe(model.length);
        expect(list.oldest).toBe(model[0]);
      }
    }),
  );
});

it('guests are remembered while they have something', () => {
  const guests = new Guests(seededRng(1));
  const [poor, rich] = [guests.of(mapped(1), 0), guests.of(mapped(2), 0)];
  const things = Array.from({ length: 3 }, (): Aged => ({ older: undefined, newer: undefined }));
  poor.mappings.add(things[0]!);
  rich.mappings.add(things[1]!);
  rich.mappings.add(things[2]!);
  expect(guests.of(mapped(1), 0)).toBe(poor);
  expect(guests.oldestOfHeaviest('mappings')).toBe(things[1]);
  expect(guests.oldestOfHeaviest('pings')).toBeUndefined();
  guests.release(poor);
  expect(guests.size).toBe(2);
  poor.mappings.remove(things[0]!);
  guests.release(poor);
  expect(guests.size).toBe(1);
});
