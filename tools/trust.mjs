// The trust report: every suite that attacks Drydock, starves it, kills it or feeds it nonsense, by one command, with what it tried
// and what came of it. Needs root and the packages of .ci/packages, as the tests do.
//
//   npm run trust                              all suites, one kill for each operation
//   npm run trust -- --kills all               a kill at every change to the disk (long)
//   npm run trust -- --runs 10000 --seed 7     property tests with so many inputs, from a seed
//   npm run trust -- --cuts 50                  that many losses of power
//   npm run trust -- --only fuzz,attacks       some suites
//   npm run trust -- --minutes 20              starts no further suite after that time
//   npm run trust -- --docs                    puts the report into docs/trust.md
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = new URL('..', import.meta.url);
/** Behind this line of docs/trust.md is the report. */
const HEADING = '## The last report\n';
const FUZZ = fileURLToPath(new URL('../test/support/faults/fuzz.mjs', import.meta.url));

/** What each suite is, and its test files (or folders). */
const SUITES = {
  crash: [
    'the daemon killed in the middle of changes, and while containers run',
    ['test/e2e/crash.test.ts', 'test/e2e/live-restore.test.ts'],
  ],
  power: [
    'the power goes at moments of the work, and what was not flushed is dropped',
    ['test/e2e/power-loss.test.ts'],
  ],
  faults: [
    'disk, memory, descriptors and patience run out; clock and network change; registries lie',
    [
      'test/e2e/faults.test.ts',
      'test/e2e/bad-input.test.ts',
      'test/e2e/interrupted.test.ts',
      'test/interop/netstack-descriptors.test.ts',
      'test/interop/store-fsck.test.ts',
      'test/interop/image-registry.test.ts',
    ],
  ],
  attacks: [
    'the API, images, archives and jails attacked',
    [
      'test/e2e/attacks.test.ts',
      'daemon/api/browsers.test.ts',
      'test/interop/image-hostile.test.ts',
      'test/interop/runtime-isolation.test.ts',
      'test/interop/probes',
    ],
  ],
  floods: ['guests and clients that flood', ['test/interop/netstack-floods.test.ts']],
  fuzz: [
    'parsers and machines fed with what nobody should send',
    [
      // With slashes: a filter matches anywhere in a path, and other suites have test/interop/netstack-x.
      ...['test/sim/', 'test/daemon/'],
      ...['test/e2e/api-fuzz.test.ts', 'test/interop/state-fuzz.test.ts'],
      ...['netstack/', 'fsbridge/', 'daemon/image/', 'daemon/build/'],
    ],
  ],
  leaks: ['launches and kills by the hundred, and what is left', ['test/interop/runtime-litter.test.ts']],
  supply: [
    'the package, its parts and their licences; documents that name tests',
    ['tools/supply.test.ts', 'tools/threat-model.test.ts'],
  ],
};

const { values: options } = parseArgs({
  options: {
    kills: { type: 'string', default: '1' },
    cuts: { type: 'string', default: '10' },
    runs: { type: 'string', default: '100' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    only: { type: 'string', default: Object.keys(SUITES).join(',') },
    minutes: { type: 'string', default: 'Infinity' },
    docs: { type: 'boolean', default: false },
  },
});

const folder = mkdtempSync(join(tmpdir(), 'drydock-trust-'));

/** Runs one suite. */
function run(files) {
  const results = join(folder, 'results.json');
  const tally = join(folder, 'tally');
  for (const path of [results, tally]) writeFileSync(path, '');
  const startedMs = performance.now();
  spawnSync(
    process.execPath,
    ['node_modules/vitest/vitest.mjs', 'run', ...files, '--reporter=json', `--outputFile=${results}`],
    {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import ${FUZZ}`,
        DRYDOCK_TEST_ALL: '1',
        DRYDOCK_TEST_KILLS: options.kills,
        DRYDOCK_TEST_CUTS: options.cuts,
        DRYDOCK_FUZZ_SEED: options.seed,
        DRYDOCK_FUZZ_RUNS: options.runs,
        DRYDOCK_TEST_TALLY: tally,
      },
    },
  );
  const counts = { kills: 0, cuts: 0, inputs: 0 };
  for (const line of readFileSync(tally, 'utf8').split('\n').filter(Boolean)) {
    const { what, count } = JSON.parse(line);
    counts[what] += count;
  }
  const text = readFileSync(results, 'utf8');
  // A run that could not even begin has written nothing.
  const { testResults } = text === '' ? { testResults: [] } : JSON.parse(text);
  const cases = testResults.flatMap((file) => file.assertionResults);
  const failed = [
    ...testResults
      .filter(
        (file) =>
          file.status === 'failed' && file.assertionResults.every(({ status }) => status !== 'failed'),
      )
      .map((file) => file.name),
    ...cases.filter(({ status }) => status === 'failed').map(({ fullName }) => fullName),
  ];
  if (cases.length === 0) failed.push(`nothing of ${files.join(', ')} was run`);
  const passed = cases.filter(({ status }) => status === 'passed').length;
  return { ...counts, passed, failed, seconds: Math.round((performance.now() - startedMs) / 1000) };
}

/** What the last `npm run soak` found, as it is in the docs. */
function lastSoak() {
  const { machine, containers, flows, hours, seconds, failed, left, virtual, verdict } = JSON.parse(
    readFileSync(new URL('docs/soak.json', root), 'utf8'),
  );
  return (
    `The last soak ([soak.md](soak.md)): ${containers} containers and ${flows} flows through the work of ${hours.toFixed(0)} hours in ` +
    `${Math.round(seconds)} seconds, and ${virtual.hours} hours in virtual time: ${verdict}, ${failed} flows lost, ` +
    `${left.litter} things left over (${machine}).`
  );
}

const rows = [];
const failures = [];
const total = { passed: 0, faults: 0, inputs: 0, seconds: 0 };
let skipped = [];
const endMs = performance.now() + Number(options.minutes) * 60_000;
const wanted = options.only.split(',');
for (const [index, name] of wanted.entries()) {
  const suite = SUITES[name];
  if (!suite) throw new Error(`there is no suite ${name}: ${Object.keys(SUITES).join(', ')}`);
  if (performance.now() > endMs) {
    skipped = wanted.slice(index);
    break;
  }
  const [what, files] = suite;
  process.stderr.write(`${name}: ${what}\n`);
  const { passed, failed, kills, cuts, inputs, seconds } = run(files);
  const faults = kills + cuts;
  rows.push(`| ${name} | ${what} | ${passed} | ${faults} | ${inputs} | ${failed.length} | ${seconds} |`);
  total.passed += passed;
  total.faults += faults;
  total.inputs += inputs;
  total.seconds += seconds;
  failures.push(...failed.map((title) => `- ${name}: ${title}`));
}
rmSync(folder, { recursive: true });

const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, Linux ${release()}, Node ${process.version}`;
const report = [
  `Seed ${options.seed}, ${options.runs} inputs for each property that does not say its own number, kills for each operation: ${options.kills}. ${machine}.`,
  '',
  '| suite | what | cases survived | kills and cuts | inputs tried | failed | seconds |',
  '| --- | --- | --- | --- | --- | --- | --- |',
  ...rows,
  `| all | | ${total.passed} | ${total.faults} | ${total.inputs} | ${failures.length} | ${total.seconds} |`,
  '',
  failures.length === 0
    ? 'Nothing failed, and nothing was left on the machine: no leak was found.'
    : ['Failed:', '', ...failures].join('\n'),
  ...(skipped.length > 0 ? ['', `Not run, for want of time: ${skipped.join(', ')}.`] : []),
  '',
  lastSoak(),
  '',
].join('\n');
process.stdout.write(report);
if (options.docs) {
  const page = new URL('docs/trust.md', root);
  const text = readFileSync(page, 'utf8');
  writeFileSync(page, `${text.slice(0, text.indexOf(HEADING) + HEADING.length)}\n${report}`);
}
process.exit(failures.length === 0 ? 0 : 1);
