import { beforeEach, describe, expect, it } from 'vitest';
import { ALL_LIMITS } from '../../test/support/daemon/fakes.ts';
import type { JailSpec, Runtime } from './runtime.ts';
import { RuntimeSet } from './runtime-set.ts';

const calls: string[] = [];
beforeEach(() => {
  calls.length = 0;
});

/** A runtime that only notes what it is asked. */
function noting(name: string, broken = false): Runtime {
  return {
    name,
    async open() {
      calls.push(`${name} open`);
      if (broken) throw new Error('missing');
    },
    async create() {
      calls.push(`${name} create`);
      return undefined as never;
    },
    report: () => [{ feature: name, asked: '', got: 'full', how: '' }],
    info: () => ({
      cgroupVersion: '2',
      cgroupDriver: 'cgroupfs',
      securityOptions: [],
      warnings: [],
      runtimes: {},
      defaultRuntime: name,
      limits: ALL_LIMITS,
    }),
    sweep: async () => [`${name} swept`],
    async close() {
      calls.push(`${name} close`);
    },
  };
}

const programs = (names: string[]) =>
  Object.fromEntries(names.map((name) => [name, { path: `/bin/${name}` }]));

const set = (defaultName = '', names = ['crun']): RuntimeSet =>
  new RuntimeSet(
    noting('own'),
    new Map([['plain', noting('plain')]]),
    (name) => noting(name, name === 'broken'),
    programs(names),
    defaultName,
  );
const spec = (runtime?: string): JailSpec => ({ runtime }) as JailSpec;

describe('several runtimes', () => {
  it.each([
    [undefined, 'own'],
    ['', 'own'],
    ['drydock', 'own'],
    ['runc', 'own'],
    ['io.containerd.runc.v2', 'own'],
    ['crun', 'crun'],
    ['plain', 'plain'],
  ])('%j is %s', (wish, name) => expect(set().report(spec(wish))[0]!.feature).toBe(name));

  it('have a default that can be another, which must exist', () => {
    expect(set('crun').report(spec())[0]!.feature).toBe('crun');
    expect(set('crun').info()).toMatchObject({
      defaultRuntime: 'crun',
      runtimes: { drydock: { path: 'drydock' }, crun: { path: '/bin/crun' } },
    });
    expect(() => set('kata')).toThrow("specified default runtime 'kata' does not exist");
  });

  it('prefer a configured runc to the usual name', () => {
    expect(set('', ['runc']).report(spec('runc'))[0]!.feature).toBe('runc');
  });

  it('can be others from now on: what has not changed stays open, what has gone is closed at the end', async () => {
    const runtimes = set('', ['crun', 'kept']);
    await runtimes.open();
    for (const name of ['crun', 'kept']) await runtimes.create(spec(name));
    expect(() => runtimes.reload(programs(['kept']), 'crun')).toThrow('does not exist');
    expect(runtimes.info().runtimes).toHaveProperty('crun');
    runtimes.reload(programs(['kept', 'kata']), 'kata');
    expect(runtimes.info()).toMatchObject({ defaultRuntime: 'kata' });
    expect(runtimes.info().runtimes).not.toHaveProperty('crun');
    await expect(runtimes.create(spec('crun'))).rejects.toThrow('unknown or invalid runtime name: crun');
    calls.length = 0;
    await runtimes.create(spec('kept'));
    await runtimes.create(spec());
    expect(calls).toEqual(['kept create', 'kata open', 'kata create']);
    await runtimes.close();
    expect(calls.slice(3).sort()).toEqual(['crun close', 'kata close', 'kept close', 'own close']);
    expect(calls.at(-1)).toBe('own close');
  });

  it('refuse a name that nobody has', async () => {
    await expect(set().create(spec('kata'))).rejects.toMatchObject({
      code: 'ERR_BAD_PARAMETER',
      message: 'unknown or invalid runtime name: kata',
    });
  });

  it('are opened when they are wanted, once, and closed when they were opened', async () => {
    const runtimes = set();
    await runtimes.open();
    expect(calls).toEqual(['own open']);
    await runtimes.create(spec('crun'));
    await runtimes.create(spec('crun'));
    await runtimes.close();
    expect(calls.slice(1)).toEqual(['crun open', 'crun create', 'crun create', 'crun close', 'own close']);
  });

  it('do not suffer from one that is missing', async () => {
    const runtimes = set('', ['broken']);
    await runtimes.open();
    await expect(runtimes.create(spec('broken'))).rejects.toThrow('missing');
    await expect(runtimes.create(spec('broken'))).rejects.toThrow('missing');
    await runtimes.create(spec());
    await runtimes.close();
    expect(calls).toEqual(['own open', 'broken open', 'broken open', 'own create', 'own close']);
  });

  it('all clean up after a killed daemon', async () => {
    expect(await set().sweep([], new Set())).toEqual(['own swept', 'plain swept', 'crun swept']);
  });
});
