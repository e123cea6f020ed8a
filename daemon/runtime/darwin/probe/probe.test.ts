/** The probes against a bench of the test's making. What a Mac would answer is not known here: that is what they are for. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { compiledEntry } from '#common/entry';
import { DarwinCalls } from '#common/native/darwin/calls';
import { DarwinDouble } from '../../../../test/support/darwin-library.ts';
import type { Bench, Ended } from './bench.ts';
import { askAll } from './index.ts';
import { QUESTIONS } from './questions.ts';
import { runTrial, type Trial } from './trial.ts';

let folder: string;
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'drydock-probe-')));
});
afterEach(() => rmSync(folder, { recursive: true }));

const OK: Ended = { code: 0, signal: null, stdout: '', stderr: '' };

/** What was asked, and how often things are open. */
interface Recording {
  bench: Bench;
  asked: string[];
  trials: Trial[];
  open: () => number;
}

/** @param failing number of the request to fail. @param outcome of trials */
function record(
  failing = -1,
  outcome: (trial: Trial) => Partial<Ended> = () => ({ stdout: 'ok\n' }),
): Recording {
  const asked: string[] = [];
  const trials: Trial[] = [];
  let listening = 0;
  const next = (what: string, ended: Ended): Ended => {
    asked.push(what);
    return asked.length - 1 === failing ? { ...OK, code: 1, stderr: 'refused' } : ended;
  };
  const double = new DarwinDouble();
  double.processes.set(process.pid, { uid: process.getuid!(), footprintBytes: 5 });
  const bench: Bench = {
    calls: new DarwinCalls(double),
    run: async (program, args) => next([program, ...args].join(' '), { ...OK, stderr: 'Token : 77' }),
    attempt: async (trial) => {
      trials.push(trial);
      return { ...OK, ...outcome(trial) };
    },
    listen: async () => {
      listening++;
      return { port: 5, connections: () => 1, close: async () => void listening-- };
    },
    packet: async () => Buffer.from([0, 0, 0, 2, ...Array(16).fill(0), 198, 18, 99, 1]),
    withFolder: (use) => use(folder),
  };
  return { bench, asked, trials, open: () => listening };
}

const ask = async (probe: string, bench: Bench): Promise<{ answer: string; detail: string }> => {
  const { answers } = await askAll(bench);
  return answers.find((one) => one.probe === probe)!;
};

describe('the probes', () => {
  it('answer every question, whatever fails', async () => {
    const { bench, asked } = record();
    const { answers } = await askAll(bench);
    expect(answers.map(({ probe }) => probe)).toEqual(QUESTIONS.map(({ probe }) => probe));
    for (const { question, answer, detail } of answers)
      expect([question, answer, typeof detail]).toEqual([
        expect.stringMatching(/\?$/),
        expect.stringMatching(/^(yes|no|unknown)$/),
        'string',
      ]);
    for (let failing = 0; failing < asked.length; failing++) {
      const again = await askAll(record(failing).bench);
      expect(again.answers).toHaveLength(QUESTIONS.length);
    }
  });

  it('tell apart what a profile sees of a chroot', async () => {
    const seen = (inside: boolean) => (trial: Trial) => ({
      stdout: inside === (trial.profile?.parameters.FILE === '/file') ? 'EPERM\n' : 'ok\n',
    });
    expect((await ask('chroot-paths', record(-1, seen(true)).bench)).answer).toBe('yes');
    expect((await ask('chroot-paths', record(-1, seen(false)).bench)).answer).toBe('no');
    expect((await ask('chroot-paths', record().bench)).answer).toBe('unknown');
  });

  it('believe a memory limit only when the kernel has killed', async () => {
    const limited = (ended: Partial<Ended>) => ask('memory-limit', record(-1, () => ended).bench);
    expect((await limited({ stdout: 'ok\n', code: null, signal: 'SIGKILL' })).answer).toBe('yes');
    expect((await limited({ stdout: 'ok\n768 MiB\n' })).answer).toBe('no');
    expect((await limited({ stdout: 'not confirmed\n', code: null, signal: 'SIGKILL' })).answer).toBe('no');
  });

  it('take back rules, aliases, interfaces and listeners, wherever they fail', async () => {
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    const all = record();
    await askAll(all.bench);
    expect(all.asked.filter((line) => /ifconfig|pfctl/.test(line))).toEqual([
      'ifconfig lo0 alias 127.94.0.1/32',
      'ifconfig lo0 -alias 127.94.0.1/32',
      'ifconfig utun5 198.18.0.1 198.18.0.2 up',
      'pfctl -E',
      'pfctl -a com.apple/drydock-probe -f -',
      'pfctl -a com.apple/drydock-probe -F all',
      'pfctl -X 77',
    ]);
    for (let failing = 0; failing < all.asked.length; failing++) {
      const before = descriptors();
      const { bench, asked, open } = record(failing);
      await askAll(bench);
      expect([open(), descriptors()]).toEqual([0, before]);
      const did = (line: string): boolean => asked.indexOf(line) >= 0 && asked.indexOf(line) !== failing;
      if (did('pfctl -E')) expect(asked).toContain('pfctl -X 77');
      if (did('ifconfig lo0 alias 127.94.0.1/32'))
        expect(asked).toContain('ifconfig lo0 -alias 127.94.0.1/32');
    }
  });
});

describe('a trial', () => {
  it('confines itself in the one order that works, then acts, and tells of each action', async () => {
    const double = new DarwinDouble();
    const told: string[] = [];
    const trial: Trial = {
      loadFirst: true,
      root: '/r',
      uid: 7,
      profile: { text: '(version 1)', parameters: { A: 'b' } },
      actions: [{ read: '/no/such/file' }, { read: '/dev/null' }, { run: ['/bin/sh', '-c', 'exit 3'] }],
    };
    await runTrial(new DarwinCalls(double), trial, (outcome) => told.push(outcome));
    expect(told).toEqual(['ENOENT', 'ok', 'exit code 3']);
    const names = double.calls.map((call) => call.split(' ')[0]);
    expect(names.slice(0, 3)).toEqual(['dlopen', 'chroot', 'chdir']);
    expect(names.indexOf('sandbox_init_with_parameters')).toBeGreaterThan(names.indexOf('setuid'));
  });

  it('does nothing when it cannot be confined', async () => {
    const double = new DarwinDouble();
    double.failing = 0;
    const told: string[] = [];
    const trial: Trial = { root: '/r', actions: [{ read: '/dev/null' }] };
    await expect(runTrial(new DarwinCalls(double), trial, (one) => told.push(one))).rejects.toThrow('chroot');
    expect(told).toEqual([]);
  });
});

describe('drydock doctor --probe', () => {
  it.skipIf(process.platform === 'darwin')('says elsewhere that it is for macOS', () => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [compiledEntry('daemon/bin'), 'doctor', '--probe'],
      { encoding: 'utf8' },
    );
    expect([status, stdout, stderr]).toEqual([1, '', expect.stringContaining('only macOS can answer')]);
  });

  it('is what the workflow for macOS runs, with commands that exist', () => {
    const text = readFileSync(new URL('../../../../.github/workflows/macos.yml', import.meta.url), 'utf8');
    const { jobs } = parse(text) as { jobs: { probe: { steps: { run?: string; uses?: string }[] } } };
    const commands = jobs.probe.steps.flatMap(({ run = '' }) => run.split('\n'));
    expect(commands.some((command) => command.includes('dist/daemon/bin.js doctor --probe'))).toBe(true);
    expect(jobs.probe.steps.at(-1)?.uses).toContain('upload-artifact');
  });
});
