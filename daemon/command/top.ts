/** `drydock net top`: live flows in the terminal, of a daemon or of a network by itself. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { explain } from '#common/command-help';
import { DrydockError } from '#common/errors';
import { plainText } from '#common/plain-text';
import { parseHost } from '../config.ts';
import { DEFAULTS } from '../config-options.ts';
import { addressOf, bytes, duration } from '../dashboard/page/format.js';
import { SNAPSHOT_PATH } from '../dashboard/routes.ts';
import type { NetworkView, Snapshot } from '../dashboard/snapshot.ts';
import { getJson } from './doctor/host.ts';
import { addFormat, type Format, paint } from './format.ts';

/** A flow with its network and the speed since the reading before. */
export interface TopRow {
  network: string;
  from: string;
  protocol: string;
  target: string;
  state: string;
  bytesFromGuest: number;
  bytesToGuest: number;
  bytesPerSecond: number;
  rttMs: number | undefined;
  retransmits: number | undefined;
  idleMs: number;
}

/** Bytes of each flow at one time. */
export interface Reading {
  atMs: number;
  total: Map<string, number>;
}

/** Flows, the fastest first, then those that moved most. @param before the reading that speeds are measured from */
export function topRows(
  networks: readonly Pick<NetworkView, 'name' | 'flows' | 'names'>[],
  before: Reading | undefined,
  atMs: number,
): { rows: TopRow[]; reading: Reading } {
  const total = new Map<string, number>();
  const seconds = before ? (atMs - before.atMs) / 1000 : 0;
  const rows = networks.flatMap(({ name, flows, names }) =>
    flows.map((flow): TopRow => {
      const key = `${name} ${flow.protocol} ${flow.id}`;
      const sum = flow.bytesFromGuest + flow.bytesToGuest;
      total.set(key, sum);
      const { protocol, target, state, bytesFromGuest, bytesToGuest, rttMs, retransmits, idleMs } = flow;
      return {
        network: name,
        from: names[addressOf(flow.guest)] ?? flow.guest,
        ...{ protocol, target, state, bytesFromGuest, bytesToGuest, rttMs, retransmits, idleMs },
        bytesPerSecond: seconds > 0 ? (sum - (before?.total.get(key) ?? 0)) / seconds : 0,
      };
    }),
  );
  const moved = (row: TopRow): number => row.bytesFromGuest + row.bytesToGuest;
  rows.sort((a, b) => b.bytesPerSecond - a.bytesPerSecond || moved(b) - moved(a));
  return { rows, reading: { atMs, total } };
}

const HEADS = ['FROM', 'PROTO', 'TO', 'STATE', 'RATE', 'SENT', 'RECEIVED', 'RTT', 'AGAIN', 'IDLE'];
/** The first column of numbers. */
const NUMBERS_FROM = 4;

/** The table, cut to the terminal. */
export function topText(rows: readonly TopRow[], room: { columns: number; lines: number }): string {
  const cells = rows.slice(0, Math.max(1, room.lines - 3)).map((row) => [
    // Names that guests gave themselves, or asked for.
    plainText(row.from),
    row.protocol,
    plainText(row.target),
    row.state,
    `${bytes(row.bytesPerSecond)}/s`,
    bytes(row.bytesFromGuest),
    bytes(row.bytesToGuest),
    duration(row.rttMs),
    String(row.retransmits ?? ''),
    duration(row.idleMs),
  ]);
  const widths = HEADS.map((head, at) => Math.max(head.length, ...cells.map((line) => line[at]!.length)));
  const line = (words: readonly string[]): string =>
    words
      .map((text, at) => (at < NUMBERS_FROM ? text.padEnd(widths[at]!) : text.padStart(widths[at]!)))
      .join('  ')
      .slice(0, room.columns)
      .trimEnd();
  const speed = rows.reduce((sum, { bytesPerSecond }) => sum + bytesPerSecond, 0);
  const sum = `${rows.length} flows, ${bytes(speed)}/s`;
  return [sum, paint(1, line(HEADS)), ...cells.map(line)].join('\n');
}

/** Networks with their flows, by the daemon's API or by the control API of `drydock net`. @throws ERR_TOP_NO_ANSWER, ERR_TOP_HOST */
async function readNetworks(host: string): Promise<Pick<NetworkView, 'name' | 'flows' | 'names'>[]> {
  const address = parseHost(host);
  if (address.kind !== 'unix')
    throw new DrydockError(
      'ERR_TOP_HOST',
      `${host} is no unix socket: give the daemon's, or the one of net --listen`,
    );
  const snapshot = (await getJson(address.path, SNAPSHOT_PATH)) as Partial<Snapshot> | undefined;
  if (snapshot?.networks) return snapshot.networks;
  const flows = (await getJson(address.path, '/flows')) as NetworkView['flows'] | undefined;
  if (Array.isArray(flows)) return [{ name: '', flows, names: {} }];
  throw new DrydockError(
    'ERR_TOP_NO_ANSWER',
    `No daemon and no network answers on ${address.path}. Does it run, and may you use its socket? Give another one with --host.`,
  );
}

async function run(flags: { host: string; interval: number; format: Format }): Promise<void> {
  const { stdout } = process;
  const isLive = stdout.isTTY === true && flags.format === 'text';
  let before: Reading | undefined;
  for (;;) {
    const networks = await readNetworks(flags.host);
    const { rows, reading } = topRows(networks, before, performance.now());
    if (flags.format === 'json' || !isLive) {
      // Speeds need two readings.
      if (before) {
        const text = topText(rows, { columns: Number.POSITIVE_INFINITY, lines: Number.POSITIVE_INFINITY });
        stdout.write(flags.format === 'json' ? `${JSON.stringify(rows, null, 2)}\n` : `${text}\n`);
        return;
      }
    } else {
      // Home, the text with each line's rest erased, and what is below it erased.
      const text = topText(rows, { columns: stdout.columns, lines: stdout.rows });
      stdout.write(`\u001b[H${text.replaceAll('\n', '\u001b[K\n')}\u001b[K\n\u001b[J`);
    }
    before = reading;
    await sleep(flags.interval * 1000);
  }
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0.1 && value <= 3600)) throw new InvalidArgumentError('0.1 to 3600 seconds.');
  return value;
}

/** Gives `net` its subcommand. */
export function defineTop(net: Command): void {
  const command = addFormat(
    net.command('top').description('show live flows: who talks to whom, how fast, and how well'),
  )
    .addOption(
      new Option('-H, --host <address>', "socket of the daemon, or of net's control API").default(
        DEFAULTS.hosts[0],
      ),
    )
    .addOption(new Option('--interval <seconds>', 'time between readings').argParser(seconds).default(1))
    .action(run);
  explain(command, {
    examples: [
      { text: 'the containers of the daemon; Ctrl-C ends it', command: 'sudo drydock net top' },
      { text: 'a network by itself', command: 'drydock net top --host unix:///tmp/net.sock' },
      { text: 'one reading for a script', command: 'sudo drydock net top --format json' },
    ],
  });
}
