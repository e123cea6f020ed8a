/**
 * Hours in virtual time: flows are held, talk now and then, and are given up for new ones, over a wire that loses frames; memory stays as
 * it is. DRYDOCK_SOAK_FLOWS and DRYDOCK_SOAK_HOURS tell how many, DRYDOCK_SOAK_RESULT where the figures go (`npm run soak`).
 */
import { writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { below, uniform } from '#common/rng';
import type { HostStream, StreamSink } from '../../netstack/flow/host.ts';
import { parseAddress } from '../../netstack/wire/address.ts';
import { StackSim } from './stack-sim.ts';

const FLOWS = Number(process.env.DRYDOCK_SOAK_FLOWS ?? 500);
const HOURS = Number(process.env.DRYDOCK_SOAK_HOURS ?? 4);
const HOUR_MS = 3_600_000;
const SILENCE_MS = 600_000;
const LIFE_MS = HOUR_MS;
const WORD_BYTES_MAX = 2000;
const FIRST_PORT = 1000;
const GROWTH_MAX = 1.1;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** One end of a flow: says what it is told to, and counts what it hears. */
class End implements HostStream {
  sink: StreamSink | undefined;
  closed = false;
  wasReset = false;
  heard = 0;
  /** Called with what was heard. */
  onWords: (bytes: number) => void = () => {};
  #pending = 0;
  #isOver = false;

  begin(): void {
    this.sink?.readable();
  }

  say(bytes: number): void {
    this.#pending += bytes;
    this.sink?.readable();
  }

  hangUp(): void {
    this.#isOver = true;
    this.sink?.readable();
  }

  read(buf: Uint8Array, off: number, len: number): number {
    const count = Math.min(len, this.#pending);
    if (count === 0) return this.#isOver ? -1 : 0;
    buf.fill(7, off, off + count);
    this.#pending -= count;
    return count;
  }

  write(_buf: Uint8Array, _off: number, len: number): number {
    this.heard += len;
    this.onWords(len);
    return len;
  }

  shutdown(): void {
    this.hangUp();
  }

  reset(): void {
    this.wasReset = true;
    this.closed = true;
  }

  close(): void {
    this.closed = true;
  }
}

test(`${FLOWS} flows over ${HOURS} virtual hours: every word comes back, and memory stays`, () => {
  const wire = { loss: 0.001, duplicate: 0, reorder: 0, corrupt: 0, delayMs: 2, jitterMs: 1 };
  const none = { connections: 0, bytesMax: 0, datagrams: 0 };
  const sim = new StackSim(1, { wire, ipv6: false, mtuBytes: 1500, offload: false, ...none });
  const [from, to] = sim.sides;
  const target = parseAddress('10.0.2.2')!;
  const startedMs = performance.now();
  let connections = 0;
  let said = 0;
  let cameBack = 0;
  let lost = 0;

  const open = (port: number): void => {
    const server = new End();
    server.onWords = (bytes) => server.say(bytes);
    to.host.servers.set(port, server);
    const client = new End();
    client.onWords = (bytes) => {
      cameBack += bytes;
    };
    client.sink = from.stack.relay(client, target, 0, port);
    connections++;
    const endAt = sim.now + LIFE_MS * (0.5 + uniform(sim.rng));
    const talk = (): void => {
      if (client.wasReset) lost++;
      if (client.closed || sim.now >= endAt) {
        client.hangUp();
        sim.after(5000, () => open(port));
        return;
      }
      const bytes = 1 + below(sim.rng, WORD_BYTES_MAX);
      said += bytes;
      client.say(bytes);
      sim.after(2 * SILENCE_MS * uniform(sim.rng), talk);
    };
    sim.after(SILENCE_MS * uniform(sim.rng), talk);
  };
  for (let index = 0; index < FLOWS; index++)
    sim.after(uniform(sim.rng) * 60_000, () => open(FIRST_PORT + index));

  const samples: { hour: number; heapMib: number; flows: number; bufferKib: number }[] = [];
  for (let half = 1; half <= HOURS * 2; half++) {
    sim.runUntil((half * HOUR_MS) / 2);
    // The first frees the buffers' owners, the second the buffers.
    collect();
    collect();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    const sum = (gauge: string): number =>
      sim.sides.reduce((total, { stack }) => total + (stack.counters[gauge] ?? 0), 0);
    samples.push({
      hour: half / 2,
      heapMib: (heapUsed + arrayBuffers) / 2 ** 20,
      flows: sum('tcpFlows') / 2,
      bufferKib: Math.round(sum('tcpBufferBytes') / 1024),
    });
  }
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  const result = { flows: FLOWS, hours: HOURS, connections, frames: sim.frames, seconds, samples };
  if (process.env.DRYDOCK_SOAK_RESULT) writeFileSync(process.env.DRYDOCK_SOAK_RESULT, JSON.stringify(result));
  expect(lost).toBe(0);
  // What was said in the last moments is still on its way.
  expect(said - cameBack).toBeLessThan(said / 100);
  expect(connections).toBeGreaterThan(FLOWS);
  const [first, last] = [samples[1]!, samples.at(-1)!];
  expect(last.flows).toBeGreaterThan(FLOWS * 0.9);
  expect(last.heapMib / first.heapMib).toBeLessThan(GROWTH_MAX);
}, 600_000);
