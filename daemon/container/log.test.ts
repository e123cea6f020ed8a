import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManualClock } from '#common/clock';
import { nullLog } from '#common/log';
import { inputs } from '../../test/support/fuzz/inputs.ts';
import { rfc3339ToNano } from '../stamps.ts';
import type { OutputSink } from './io.ts';
import { type LogLine, type LogQuery, readLog } from './log-reader.ts';
import { ContainerLog, type LogFileOptions, logAttributes } from './logs.ts';

let folder: string;
let clock: ManualClock;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'drydock-log-'));
  clock = new ManualClock();
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const NO_ROTATION: LogFileOptions = { sizeMax: Number.POSITIVE_INFINITY, filesMax: 1 };

function makeLog(rotation = NO_ROTATION): ContainerLog {
  return new ContainerLog(join(folder, 'log'), rotation, clock, nullLog);
}

function query(changes: Partial<LogQuery> = {}): LogQuery {
  return {
    tail: undefined,
    sinceNano: undefined,
    untilNano: undefined,
    follow: false,
    stdout: true,
    stderr: true,
    signal: new AbortController().signal,
    ...changes,
  };
}

async function lines(log: ContainerLog, changes: Partial<LogQuery> = {}): Promise<LogLine[]> {
  const found: LogLine[] = [];
  for await (const batch of readLog(log, query(changes))) found.push(...batch);
  return found;
}

/** Ends a run and waits until the log says so. */
async function end(log: ContainerLog, sink: OutputSink): Promise<void> {
  const over = new Promise<void>((resolve) => {
    log.watch(() => {
      if (!log.live) resolve();
    });
  });
  sink.end();
  await over;
}

describe('the log of a container', () => {
  it('drops what the disk is too slow for, and never holds the container back, when it may not block', async () => {
    const log = makeLog({ ...NO_ROTATION, bufferMax: 1000 });
    const sink = log.begin();
    // All in one turn of the loop: nothing reaches the disk meanwhile.
    for (let i = 0; i < 100; i++) expect(sink.write(1, Buffer.from(`${i} ${'x'.repeat(100)}\n`))).toBe(true);
    await end(log, sink);
    const kept = await lines(log);
    expect(kept.length).toBeGreaterThan(2);
    expect(kept.length).toBeLessThan(12);
    expect(kept.map(({ text }) => Number.parseInt(text, 10))).toEqual(kept.map((_, i) => i));
  });

  it('keeps rotated files compressed, and reads them back with those that are not yet', async () => {
    const log = makeLog({ sizeMax: 400, filesMax: 4, compress: true });
    const sink = log.begin();
    for (let i = 0; i < 40; i++) {
      sink.write(1, Buffer.from(`line ${i}\n`));
      await log.flush();
    }
    await end(log, sink);
    expect((await readdir(folder)).sort()).toEqual(['log', 'log.1.gz', 'log.2.gz', 'log.3.gz']);
    const plain = gunzipSync(await readFile(join(folder, 'log.1.gz'))).toString();
    expect(plain).toMatch(/^{"log":"line \d+\\n",/);
    const numbers = (await lines(log)).map(({ text }) => Number(text.slice(5)));
    expect(numbers.at(-1)).toBe(39);
    expect(numbers).toEqual(numbers.map((_, index) => numbers[0]! + index));
    expect(numbers.length).toBeGreaterThan(12);
    expect((await lines(log, { tail: 9 })).map(({ text }) => Number(text.slice(5)))).toEqual(
      numbers.slice(-9),
    );
    expect(await readdir(folder)).toHaveLength(4);
  });

  it('has docker’s layout', async () => {
    const log = makeLog();
    const sink = log.begin();
    sink.write(1, Buffer.from('out\n'));
    sink.write(2, Buffer.from('err "quoted"\n'));
    await end(log, sink);
    expect(await readFile(log.path, 'utf8')).toBe(
      '{"log":"out\\n","stream":"stdout","time":"2026-01-01T00:00:00.000000000Z"}\n' +
        '{"log":"err \\"quoted\\"\\n","stream":"stderr","time":"2026-01-01T00:00:00.000001000Z"}\n',
    );
  });

  it('gives back any text, however the chunks were cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'grapheme', maxLength: 20 }).map((s) => s.replaceAll('\n', ''))),
        fc.array(fc.nat(30)),
        async (texts, cuts) => {
          await rm(join(folder, 'log'), { force: true });
          const log = makeLog();
          const sink = log.begin();
          let rest = Buffer.from(texts.map((t) => `${t}\n`).join(''));
          for (const cut of cuts) {
            sink.write(1, rest.subarray(0, cut));
            rest = rest.subarray(cut);
          }
          sink.write(1, rest);
          await end(log, sink);
          expect((await lines(log)).map((l) => l.text)).toEqual(texts.map((t) => `${t}\n`));
        },
      ),
      { numRuns: inputs(50) },
    );
  });

  it('cuts lines above 16 KiB, never inside a character, and ends a last line that has no newline', async () => {
    const log = makeLog();
    const sink = log.begin();
    const long = 'ä'.repeat(20_000);
    sink.write(1, Buffer.from(`x${long}\nlast`));
    await end(log, sink);
    const found = await lines(log);
    expect(found.map((l) => Buffer.byteLength(l.text))).toEqual([16_383, 16_384, 7235, 5]);
    expect(found.map((l) => l.text).join('')).toBe(`x${long}\nlast\n`);
  });

  it('--tail, --since, --until and one stream only', async () => {
    const log = makeLog();
    const sink = log.begin();
    for (let n = 0; n < 10; n++) {
      sink.write(n % 2 === 0 ? 1 : 2, Buffer.from(`${n}\n`));
      clock.advance(1000);
    }
    await end(log, sink);
    const texts = async (changes: Partial<LogQuery>): Promise<string> =>
      (await lines(log, changes)).map((l) => l.text.trim()).join('');
    const at = (second: number): bigint =>
      rfc3339ToNano('2026-01-01T00:00:00Z') + BigInt(second) * 1_000_000_000n;
    expect(await texts({})).toBe('0123456789');
    expect(await texts({ tail: 3 })).toBe('789');
    expect(await texts({ tail: 0 })).toBe('');
    expect(await texts({ tail: 99 })).toBe('0123456789');
    expect(await texts({ sinceNano: at(7) })).toBe('789');
    expect(await texts({ untilNano: at(2) })).toBe('012');
    expect(await texts({ sinceNano: at(3), untilNano: at(5) })).toBe('345');
    expect(await texts({ stderr: false })).toBe('02468');
  });

  it('--follow gives what comes and ends with the container; one that does not run ends at once', async () => {
    const log = makeLog();
    let sink = log.begin();
    sink.write(1, Buffer.from('first\n'));
    const following = lines(log, { follow: true });
    await log.flush();
    sink.write(1, Buffer.from('second\n'));
    await end(log, sink);
    expect((await following).map((l) => l.text)).toEqual(['first\n', 'second\n']);
    expect(await lines(log, { follow: true })).toHaveLength(2);
    sink = log.begin();
    sink.write(1, Buffer.from('third\n'));
    await end(log, sink);
    expect(await lines(log)).toHaveLength(3);
  });

  it('--follow ends when its client has gone', async () => {
    const log = makeLog();
    const sink = log.begin();
    const gone = new AbortController();
    const following = lines(log, { follow: true, signal: gone.signal });
    await log.flush();
    gone.abort();
    expect(await following).toEqual([]);
    await end(log, sink);
  });

  it('rotates: keeps so many files, reads across them, and followers lose nothing', async () => {
    const log = makeLog({ sizeMax: 500, filesMax: 3 });
    const sink = log.begin();
    const following = lines(log, { follow: true });
    for (let n = 0; n < 40; n++) {
      sink.write(1, Buffer.from(`line ${n}\n`));
      await log.flush();
    }
    const kept = await lines(log);
    expect(kept.length).toBeGreaterThan(10);
    expect(kept.length).toBeLessThan(30);
    expect(kept.at(-1)!.text).toBe('line 39\n');
    expect((await lines(log, { tail: 12 })).map((l) => l.text)).toEqual(kept.slice(-12).map((l) => l.text));
    await end(log, sink);
    const seen = (await following).map((l) => l.text);
    expect(seen).toEqual(Array.from({ length: 40 }, (_, n) => `line ${n}\n`));
  });

  it('rotates while followers open its files, and they lose nothing', async () => {
    const log = makeLog({ sizeMax: 300, filesMax: 40 });
    const sink = log.begin();
    const following = Array.from({ length: 4 }, () => lines(log, { follow: true }));
    const all = Array.from({ length: 150 }, (_, n) => `line ${n}\n`);
    for (const line of all) {
      sink.write(1, Buffer.from(line));
      // Not after every line: followers fall behind by one file or several.
      if (line.length % 7 === 0) await log.flush();
    }
    await end(log, sink);
    for (const each of following) expect((await each).map((l) => l.text)).toEqual(all);
  });

  it('rotates within one burst of output too', async () => {
    const log = makeLog({ sizeMax: 1000, filesMax: 2 });
    const sink = log.begin();
    sink.write(1, Buffer.from(Array.from({ length: 500 }, (_, n) => `line ${n}\n`).join('')));
    await end(log, sink);
    expect((await readFile(log.path)).length).toBeLessThan(1100);
    expect((await readFile(`${log.path}.1`)).length).toBeLessThan(1100);
    expect((await lines(log)).at(-1)!.text).toBe('line 499\n');
  });

  it('has the labels, variables and tag that were asked for with each line', async () => {
    const attributes = logAttributes(
      { labels: 'a,none', 'env-regex': '^B', tag: '{{.Name}}/{{.ID}}' },
      { id: 'f'.repeat(64), name: 'n', labels: { a: '1', x: '2' }, env: ['B1=b', 'C=c'] },
    );
    expect(attributes).toEqual({ a: '1', B1: 'b', tag: `n/${'f'.repeat(12)}` });
    const log = makeLog({ ...NO_ROTATION, attributes });
    const sink = log.begin();
    sink.write(1, Buffer.from('x\n'));
    await end(log, sink);
    expect((await lines(log))[0]).toMatchObject({ text: 'x\n', attributes });
  });

  it('a damaged line is skipped', async () => {
    const log = makeLog();
    const sink = log.begin();
    sink.write(1, Buffer.from('good\n'));
    await end(log, sink);
    const { appendFile } = await import('node:fs/promises');
    await appendFile(
      log.path,
      '{"log":"cut off\n{"log":"after\\n","stream":"stdout","time":"2026-01-01T00:00:05Z"}\n',
    );
    expect((await lines(log)).map((l) => l.text)).toEqual(['good\n', 'after\n']);
  });
});
