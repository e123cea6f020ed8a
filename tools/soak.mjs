// The soak: 200 containers and 10,000 flows while the daemon does the work of eight busy hours as fast as it can, and eight hours of as
// many flows in virtual time. Memory, descriptors and the event loop's delay must stay as they are.
//
//   npm run soak                                     both, table
//   npm run soak -- --json                           one JSON document and nothing else
//   npm run soak -- --out docs                       also writes docs/soak.md, docs/soak.json and docs/images/soak.svg
//   npm run soak -- --containers 50 --flows 1000     smaller
//   npm run soak -- --hours 1 --minutes 2            less work; ends after two minutes with what was done by then
//
// Needs root and the docker CLI. Exits with 1 when something grew, a flow was lost or something was left over.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Bench, startDaemon } from './bench/daemons.mjs';
import { Api } from './bench/engine/api.mjs';
import { page, plot, verdicts } from './soak/report.mjs';
import { Work } from './soak/work.mjs';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    containers: { type: 'string', default: '200' },
    flows: { type: 'string', default: '10000' },
    hours: { type: 'string', default: '8' },
    minutes: { type: 'string', default: '10' },
    'virtual-hours': { type: 'string', default: '8' },
    out: { type: 'string' },
  },
});
if (process.getuid() !== 0) {
  console.error('soak starts a daemon and containers: run it as root.');
  process.exit(1);
}

const root = fileURLToPath(new URL('..', import.meta.url));
const here = (name) => fileURLToPath(new URL(`soak/${name}`, import.meta.url));
const CONTAINERS = Number(options.containers);
const FLOWS = Number(options.flows);
/** Containers that hold flows. */
const CLIENTS = Math.max(1, Math.min(10, Math.floor(CONTAINERS / 2)));
const LANES = 2;
const SETTLED_MS = 60_000;
const tell = (text) => process.stderr.write(`${text}\n`);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition, what, limitMs = SETTLED_MS) {
  const endMs = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`in vain: ${what}`);
    await sleep(200);
  }
}

/** What the daemon's process has, and how many processes it keeps beside containers. */
function stateOf(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const number = (name) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)[1]);
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  const launchers = children.filter((child) => {
    try {
      return readFileSync(`/proc/${child}/cmdline`, 'latin1').startsWith('drydock-');
    } catch {
      return false;
    }
  });
  return {
    rssMib: number('VmRSS') / 1024,
    threads: number('Threads'),
    fds: readdirSync(`/proc/${pid}/fd`).length,
    processes: launchers.length,
  };
}

const lastLine = (text) => {
  const lines = text.trim().split('\n');
  return lines.at(-1) ? JSON.parse(lines.at(-1)) : undefined;
};

/** What the containers with flows say of themselves, added up. */
async function flowsOf(api, clients) {
  const sum = { held: 0, opened: 0, failed: 0, talks: 0, p50: 0 };
  for (const name of clients) {
    const bytes = await api.bytes('GET', `/containers/${name}/logs?stdout=1&tail=1`);
    // Among the headers of its frames.
    const line = JSON.parse(/\{[^{}]*\}/.exec(bytes.toString('latin1'))?.[0] ?? 'null');
    for (const key of ['held', 'opened', 'failed', 'talks']) sum[key] += line?.[key] ?? 0;
    sum.p50 = Math.max(sum.p50, line?.p50 ?? 0);
  }
  return sum;
}

async function startContainers(api, port) {
  const run = async (name, wish) => {
    await api.json('POST', `/containers/create?name=${name}`, { Image: 'drydock/host', ...wish });
    await api.bytes('POST', `/containers/${name}/start`);
  };
  const clients = Array.from({ length: CLIENTS }, (_, index) => `soak-client-${index}`);
  const script = readFileSync(here('client.cjs'), 'utf8');
  for (const name of clients)
    await run(name, {
      Cmd: ['node', '-e', script, '--', String(port), String(Math.ceil(FLOWS / CLIENTS))],
      HostConfig: { LogConfig: { Type: 'json-file', Config: { 'max-size': '100k' } } },
    });
  const idle = Array.from({ length: CONTAINERS - CLIENTS }, (_, index) => `soak-idle-${index}`);
  const waiting = [...idle];
  const lane = async () => {
    for (let name = waiting.pop(); name; name = waiting.pop())
      await run(name, { Cmd: ['sh', '-c', 'echo up; sleep 1000000'] });
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return { clients, idle };
}

/** Everything at once. */
async function soak(bench) {
  const delays = bench.at('delays');
  writeFileSync(delays, '');
  process.env.SOAK_DELAYS = delays;
  process.env.NODE_OPTIONS = `--import ${here('loop-delay.mjs')}`;
  const daemon = await startDaemon(bench, 'drydock');
  delete process.env.NODE_OPTIONS;
  const api = new Api(daemon.socket);
  await until(async () => (await api.json('GET', '/images/json')).length > 0, 'the host image', 300_000);
  const before = stateOf(daemon.pid);

  const server = spawn(process.execPath, [here('echo.mjs')], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = await once(server.stdout, 'data');
  try {
    tell(`starting ${CONTAINERS} containers`);
    const { clients, idle } = await startContainers(api, Number(port));
    tell(`opening ${FLOWS} flows`);
    await until(async () => (await flowsOf(api, clients)).held >= FLOWS * 0.99, 'all flows', 300_000);
    const flowsBefore = await flowsOf(api, clients);

    const work = new Work(api, idle);
    const startedMs = performance.now();
    const samples = [];
    const lanes = Promise.all(Array.from({ length: LANES }, () => work.run(Number(options.hours))));
    let isOver = false;
    lanes
      .finally(() => {
        isOver = true;
      })
      .catch(() => {});
    while (!isOver) {
      await Promise.race([lanes, sleep(1000)]);
      const second = Math.round((performance.now() - startedMs) / 1000);
      const { p50, p99 } = lastLine(readFileSync(delays, 'utf8')) ?? {};
      const { held, p50: roundTripMs } = await flowsOf(api, clients);
      samples.push({ second, ...stateOf(daemon.pid), loopP50: p50, loopP99: p99, roundTripMs, flows: held });
      if (second % 30 === 0) tell(`${second} s: the work of ${work.hours.toFixed(1)} hours`);
      if (second > Number(options.minutes) * 60) work.stop();
    }
    await lanes;
    const seconds = (performance.now() - startedMs) / 1000;
    const flows = await flowsOf(api, clients);

    tell('removing the containers');
    for (const name of [...clients, ...idle]) await api.bytes('DELETE', `/containers/${name}?force=1`);
    // Connections that were given up are let go of some time after.
    await until(() => stateOf(daemon.pid).fds <= before.fds + 16, 'descriptors to be freed').catch(() => {});
    const litter = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
    return {
      seconds,
      hours: work.hours,
      work: work.done,
      connections: flows.opened,
      talks: flows.talks - flowsBefore.talks,
      failed: flows.failed,
      left: {
        fds: stateOf(daemon.pid).fds - before.fds,
        litter: litter.filter((line) => line.includes(`${bench.folder}/drydock/overlay2`)).length,
      },
      samples,
      watched: verdicts(samples),
    };
  } finally {
    server.kill();
    api.close();
  }
}

/** Hours in virtual time, by the simulation's own test. */
function soakVirtually(bench) {
  const result = bench.at('virtual.json');
  const { status, stdout } = spawnSync(
    process.execPath,
    ['node_modules/vitest/vitest.mjs', 'run', '--project', 'unit', 'test/sim/hours.test.ts'],
    {
      cwd: root,
      encoding: 'utf8',
      env: {
        ...process.env,
        DRYDOCK_SOAK_FLOWS: options.flows,
        DRYDOCK_SOAK_HOURS: options['virtual-hours'],
        DRYDOCK_SOAK_RESULT: result,
      },
    },
  );
  if (status !== 0) tell(stdout);
  return { ...JSON.parse(readFileSync(result, 'utf8')), passed: status === 0 };
}

async function main() {
  const bench = new Bench();
  const loadBefore = loadavg()[0];
  let real;
  let virtual;
  try {
    tell(`${options['virtual-hours']} hours in virtual time`);
    virtual = soakVirtually(bench);
    real = await soak(bench);
  } finally {
    await bench.close();
  }
  const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, Linux ${release()}, Node ${process.version}, load ${loadBefore.toFixed(1)} before`;
  const report = { machine, containers: CONTAINERS, flows: FLOWS, ...real, virtual };
  const isGood =
    virtual.passed &&
    real.failed === 0 &&
    real.left.litter === 0 &&
    real.left.fds <= 16 &&
    real.watched.every(({ flat }) => flat);
  report.verdict = isGood ? 'flat' : 'not flat';
  const text = page(report);
  if (options.out) {
    const { samples, ...summary } = report;
    writeFileSync(join(options.out, 'soak.md'), text);
    writeFileSync(join(options.out, 'soak.json'), `${JSON.stringify(summary, null, 2)}\n`);
    writeFileSync(
      join(options.out, 'images/soak.svg'),
      plot(samples, `${CONTAINERS} containers and ${FLOWS} flows`),
    );
  }
  process.stdout.write(options.json ? `${JSON.stringify(report)}\n` : text);
  process.exitCode = isGood ? 0 : 1;
}

await main();
