// How long each command takes to start: its --help, and those that print and end, beside bare `node -e 0`. Interleaved, so that
// what else the machine does falls on all alike; the best of the rounds is what the command costs, the median what it took here.
//
//   npm run bench:start                     7 rounds, table
//   npm run bench:start -- --rounds 20 --json
//   npm run bench:start -- --node /path/to/another/node
import { spawnSync } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { COMMANDS } from '../../dist/daemon/command/program.js';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    rounds: { type: 'string', default: '7' },
    node: { type: 'string', default: process.execPath },
  },
});
const program = new URL('../../dist/daemon/bin.js', import.meta.url).pathname;
const cases = [
  ['node -e 0', ['-e', '0']],
  ['drydock --help', [program, '--help']],
  ['drydock version', [program, 'version']],
  ...COMMANDS.map(({ name }) => [`drydock ${name} --help`, [program, name, '--help']]),
  ['drydock context ls', [program, 'context', 'ls']],
  ['drydock daemon --validate', [program, 'daemon', '--validate']],
];
const timesMs = cases.map(() => []);
for (let round = 0; round < Number(options.rounds); round++)
  for (const [at, [name, args]] of cases.entries()) {
    const begin = performance.now();
    const { status, stderr } = spawnSync(options.node, args, { encoding: 'utf8' });
    timesMs[at].push(performance.now() - begin);
    if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr}`);
  }
const rows = cases.map(([name], at) => {
  const sorted = timesMs[at].toSorted((a, b) => a - b);
  return { name, bestMs: Math.round(sorted[0]), medianMs: Math.round(sorted[sorted.length >> 1]) };
});
if (options.json) console.log(JSON.stringify({ load: loadavg()[0], rows }, null, 2));
else {
  const { stdout } = spawnSync(options.node, ['--version'], { encoding: 'utf8' });
  console.log(`node ${stdout.trim()}, ${cpus().length} cores, load ${loadavg()[0].toFixed(1)}`);
  console.log(`${'command'.padEnd(28)} best ms  median ms  times bare node`);
  for (const { name, bestMs, medianMs } of rows)
    console.log(
      `${name.padEnd(28)} ${String(bestMs).padStart(7)}  ${String(medianMs).padStart(9)}  ${(bestMs / rows[0].bestMs).toFixed(1)}`,
    );
}
