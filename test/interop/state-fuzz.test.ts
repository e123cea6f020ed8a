/**
 * Every record of a data root, damaged in any way: the next start says which one and what is wrong with it, goes on with all
 * the others, and throws nothing away that the damaged one may want.
 */
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { errorCode, errorMessage } from '#common/errors';
import { type Log, nullLog } from '#common/log';
import { fakeDaemon } from '../support/daemon/fakes.ts';
import { corpusOf, FUZZ_TIMEOUT_MS, fuzzed } from '../support/fuzz/corpus.ts';
import { type Damage, damaged, damages } from '../support/fuzz/damage.ts';
import { dockerArchive, file, load, type TestImages, testImages } from '../support/images.ts';
import { lacking } from '../support/requirements.ts';

const RUNS = 60;

/** A change of the record that is the so manieth of those that there are. */
interface Case {
  record: number;
  damage: Damage;
}

const cases = fc.record({ record: fc.nat(), damage: damages });

/** A log that keeps the paths that it was told of. */
function keepingLog(): { log: Log; told: string[] } {
  const told: string[] = [];
  const keep = (fields: object): void => void told.push(JSON.stringify(fields));
  return { log: { ...nullLog, warn: keep, error: keep }, told };
}

describe('records of containers, networks and volumes', () => {
  let template: string;
  let records: string[];

  beforeAll(async () => {
    template = mkdtempSync(join(tmpdir(), 'drydock-state-'));
    const daemon = await fakeDaemon(join(template, 'home'));
    const post = async (url: string, payload: object): Promise<void> => {
      const { statusCode, body } = await daemon.app.inject({ method: 'POST', url, payload });
      expect(statusCode, body).toBeLessThan(300);
    };
    for (const Name of ['one', 'two']) {
      await post('/networks/create', { Name, Labels: { a: 'b' } });
      await post('/volumes/create', { Name, Labels: { a: 'b' } });
      await post(`/containers/create?name=${Name}`, {
        Image: 'test',
        Env: ['A=b'],
        Labels: { c: 'd' },
        Healthcheck: { Test: ['CMD', 'true'], Interval: 1e9 },
        ExposedPorts: { '80/tcp': {} },
        HostConfig: {
          Binds: [`${Name}:/data`],
          NetworkMode: Name,
          PortBindings: { '80/tcp': [{ HostPort: '0' }] },
          LogConfig: { Type: 'json-file', Config: { 'max-size': '1m' } },
          RestartPolicy: { Name: 'on-failure', MaximumRetryCount: 2 },
        },
      });
    }
    await post('/containers/one/start', {});
    cpSync(join(template, 'home'), join(template, 'kept'), { recursive: true });
    await daemon.close();
    const root = join(template, 'kept/data');
    records = ['containers', 'networks', 'volumes'].flatMap((kind) =>
      readdirSync(join(root, kind)).map(
        (key) => `${kind}/${key}/${kind === 'containers' ? 'config' : kind.slice(0, -1)}.json`,
      ),
    );
    records.sort();
  });
  afterAll(() => rmSync(template, { recursive: true }));

  /** Names by kind, as the API lists them. */
  const listed = async (daemon: Awaited<ReturnType<typeof fakeDaemon>>): Promise<string[]> => {
    const get = async (url: string): Promise<never> => {
      const { statusCode, body } = await daemon.app.inject(url);
      expect(statusCode, `${url}: ${body}`).toBe(200);
      return JSON.parse(body) as never;
    };
    const containers: { Names: string[]; Id: string }[] = await get('/containers/json?all=1');
    const networks: { Name: string; Id: string }[] = await get('/networks');
    const { Volumes: volumes }: { Volumes: { Name: string }[] } = await get('/volumes');
    for (const { Id } of containers) await get(`/containers/${Id}/json`);
    for (const { Id } of networks) await get(`/networks/${Id}`);
    return [
      ...containers.map(({ Id }) => `containers/${Id}`),
      ...networks.map(({ Id }) => `networks/${Id}`),
      ...volumes.map(({ Name }) => `volumes/${Name}`),
    ];
  };

  it('are told when they are damaged, and the others are there', { timeout: FUZZ_TIMEOUT_MS }, async () => {
    await fuzzed(
      corpusOf<Case>('json-state'),
      fc.asyncProperty(cases, async ({ record, damage }) => {
        const path = records[record % records.length]!;
        const home = mkdtempSync(join(tmpdir(), 'drydock-state-'));
        cpSync(join(template, 'kept'), home, { recursive: true });
        const absolute = join(home, 'data', path);
        writeFileSync(absolute, damaged(readFileSync(absolute, 'utf8'), damage));
        const { log, told } = keepingLog();
        const daemon = await fakeDaemon(home, log);
        try {
          const there = await listed(daemon);
          for (const other of records.filter((each) => each !== path))
            expect(there).toContain(other.slice(0, other.lastIndexOf('/')));
          // Either it can be used as it is, or the log says which it was. A volume is made anew around its files.
          if (!there.includes(path.slice(0, path.lastIndexOf('/'))))
            expect(told.join('\n')).toContain(path.split('/')[1]);
        } finally {
          await daemon.close();
        }
      }),
      RUNS,
    );
  });
});

describe.skipIf(lacking('root'))('records of images, layers and root file systems', () => {
  let store: TestImages;
  let log: ReturnType<typeof keepingLog>;
  let records: string[];

  beforeEach(async () => {
    log = keepingLog();
    store = await testImages(undefined, {
      ...nullLog,
      warn: (...args) => log.log.warn(...args),
      error: (...args) => log.log.error(...args),
    });
    for (const name of ['one', 'two'])
      await load(store, dockerArchive([[file('a', 'shared')], [file('b', name)]], { names: [name] }));
    const made = await store.images.importRoot(
      Readable.from([Buffer.alloc(1024)]),
      { changes: [], reference: 'made' },
      () => {},
    );
    await store.roots.create('c'.repeat(64), made.id);
    await store.roots.unmount('c'.repeat(64));
    const inFolder = (folder: string, name: string): string[] =>
      readdirSync(join(store.dataRoot, folder)).map((key) => `${folder}/${key}${name}`);
    records = [
      'image/references.json',
      'image/content/fresh.json',
      ...inFolder('image/images', ''),
      ...inFolder('overlay2/layers', '/layer.json'),
      ...inFolder('overlay2/roots', '/root.json'),
    ].sort();
  });
  afterEach(() => store.dispose());

  const names = async (): Promise<string[]> => (await store.images.list()).flatMap(({ tags }) => tags).sort();

  it('are told when they are damaged, and nothing is thrown away', { timeout: FUZZ_TIMEOUT_MS }, async () => {
    const all = ['made:latest', 'one:latest', 'two:latest'];
    await fuzzed(
      corpusOf<Case>('image-state'),
      fc.asyncProperty(cases, async ({ record, damage }) => {
        const path = records[record % records.length]!;
        const absolute = join(store.dataRoot, path);
        const whole = readFileSync(absolute, 'utf8');
        log = keepingLog();
        await store.close();
        writeFileSync(absolute, damaged(whole, damage));
        try {
          await store.reopen();
          if (path.includes('/images/')) expect((await names()).length).toBeGreaterThanOrEqual(2);
          else if (!path.includes('references')) expect(await names()).toEqual(all);
          if ((await names()).length < 3 && !path.includes('references'))
            expect(log.told.join('\n')).toContain(path);
          // What is there can be used.
          for (const { id } of await store.images.list()) {
            await store.roots.create('d', id);
            expect(readdirSync(await store.roots.mount('d'))).toBeDefined();
            await store.roots.remove('d');
          }
        } catch (error) {
          // The names alone are needed by all: without them every image would seem to be nobody's.
          if (errorCode(error) !== 'ERR_STORE_DAMAGED') throw error;
          expect(path).toBe('image/references.json');
          expect(errorMessage(error)).toContain(absolute);
        }
        if (!path.endsWith('layer.json')) writeFileSync(absolute, whole);
        await store.reopen();
        expect(await names()).toEqual(all);
      }),
      RUNS,
    );
  });
});
