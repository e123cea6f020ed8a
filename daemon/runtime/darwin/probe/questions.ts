/**
 * The open questions about Darwin that only a Mac can answer, each as a probe. Nothing here has run on a Mac. A probe
 * changes as little as it can and takes everything back, whatever fails on the way.
 */
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { defaultSpec } from '../../defaults.ts';
import { jailPolicy } from '../../spec/policy.ts';
import { seatbeltProfile } from '../profile.ts';
import type { Bench, Ended } from './bench.ts';
import { withPfRoute } from './pf-route.ts';
import type { Trial } from './trial.ts';

/** What a Mac says to a question. */
export interface Answer {
  answer: 'yes' | 'no' | 'unknown';
  detail: string;
}

/** A question with the way to its answer. */
export interface Question {
  probe: string;
  question: string;
  ask(bench: Bench): Promise<Answer>;
}

/** A user that no system gives away. */
const PROBE_UID = 0x7ffe_0001;
const MEBIBYTE = 1 << 20;
const LOOPBACK_ALIAS = '127.94.0.1';
const ECHO = '/bin/echo';
const DYLD = '/usr/lib/dyld';

const said = ({ code, signal, stdout, stderr }: Ended): string =>
  [stdout.trim().split('\n').join(', '), stderr.trim(), signal ?? (code === 0 ? '' : `exit code ${code}`)]
    .filter(Boolean)
    .join('; ');
const yesIf = (yes: boolean, detail: string): Answer => ({ answer: yes ? 'yes' : 'no', detail });
/** A profile that allows all but one thing. */
const but = (rule: string, parameters: Record<string, string> = {}): Trial['profile'] => ({
  text: `(version 1)\n(allow default)\n${rule}\n`,
  parameters,
});
const firstLine = ({ stdout }: Ended): string => stdout.split('\n')[0] ?? '';

/** Whether programs can be started in a root that has them and the linker. */
async function startInRoot(bench: Bench, env: Record<string, string>): Promise<Answer> {
  return bench.withFolder(async (root) => {
    for (const path of [ECHO, DYLD]) {
      mkdirSync(join(root, dirname(path)), { recursive: true });
      copyFileSync(path, join(root, path));
    }
    const ended = await bench.attempt({ root, actions: [{ run: [ECHO, 'here'], env }] });
    return yesIf(firstLine(ended) === 'ok', said(ended));
  });
}

/** Reads a file under each of several profiles. */
async function readUnder(bench: Bench, rules: Record<string, string>): Promise<Record<string, string>> {
  return bench.withFolder(async (folder) => {
    const path = join(folder, 'file');
    writeFileSync(path, 'x');
    const outcomes: Record<string, string> = {};
    for (const [name, rule] of Object.entries(rules)) {
      const profile = but(rule, { FILE: path })!;
      outcomes[name] = said(await bench.attempt({ profile, actions: [{ read: path }] }));
    }
    return outcomes;
  });
}

const FILE = '(literal (param "FILE"))';

/** All of them, those that need no rights first. */
export const QUESTIONS: readonly Question[] = [
  {
    probe: 'abi',
    question: 'Do the calls about processes answer what the checked table says?',
    async ask({ calls }) {
      const { pid } = process;
      const usage = calls.usage(pid);
      const isListed = calls.processesOf(process.getuid?.() ?? 0).includes(pid);
      const since = Date.now() - Number(calls.startTime(pid)) / 1000;
      const isRight = isListed && (usage?.memoryBytes ?? 0) > 0 && since > 0 && since < 600_000;
      return yesIf(isRight, `listed ${isListed}, started ${since} ms ago, ${JSON.stringify(usage)}`);
    },
  },
  {
    probe: 'terminal',
    question: 'Do terminals open, and pass bytes on?',
    async ask({ calls, packet }) {
      const { master, slavePath } = calls.openTerminal();
      try {
        const slave = openSync(slavePath, constants.O_RDWR | constants.O_NOCTTY);
        try {
          writeFileSync(slave, 'through');
          const bytes = await packet(master);
          return yesIf(bytes?.toString() === 'through', `${slavePath}: ${bytes}`);
        } finally {
          closeSync(slave);
        }
      } finally {
        calls.close(master);
      }
    },
  },
  {
    probe: 'clone',
    question: 'Are copies of files clones (APFS), and are names that differ by case different files?',
    ask: (bench) =>
      bench.withFolder(async (folder) => {
        const path = join(folder, 'file');
        writeFileSync(path, 'x');
        const isSensitive = !existsSync(join(folder, 'FILE'));
        try {
          copyFileSync(path, join(folder, 'copy'), constants.COPYFILE_FICLONE_FORCE);
          return yesIf(true, `clones; case-${isSensitive ? '' : 'in'}sensitive`);
        } catch (error) {
          return yesIf(false, `${error}; case-${isSensitive ? '' : 'in'}sensitive`);
        }
      }),
  },
  {
    probe: 'execve',
    question: 'Can Node become another program, with its descriptors?',
    async ask(bench) {
      const ended = await bench.attempt({ actions: [{ become: [ECHO, 'became'] }] });
      return yesIf(ended.stdout === 'became\n' && ended.code === 0, said(ended));
    },
  },
  {
    probe: 'profile',
    question: 'Is our profile taken, and does it keep the rest of the machine out?',
    ask: (bench) =>
      bench.withFolder(async (rootPath) => {
        writeFileSync(join(rootPath, 'file'), 'x');
        const spec = { ...defaultSpec('0'.repeat(64), rootPath), network: { attached: false, ports: [] } };
        const profile = seatbeltProfile(jailPolicy(spec), { mode: 'confine', rootPath });
        const actions = [
          { read: join(rootPath, 'file') },
          { read: '/etc/passwd' },
          { read: process.execPath },
        ];
        const ended = await bench.attempt({ profile, actions });
        return yesIf(/^ok\n(?!ok)/.test(ended.stdout), said(ended));
      }),
  },
  {
    probe: 'precedence',
    question: 'Does the last rule with a filter win, after the more special operation?',
    async ask(bench) {
      const outcomes = await readUnder(bench, {
        'deny, then allow': `(deny file-read* ${FILE})(allow file-read* ${FILE})`,
        'allow, then deny': `(allow file-read* ${FILE})(deny file-read* ${FILE})`,
        'special deny, then general allow': `(deny file-read-data ${FILE})(allow file-read* ${FILE})`,
        'allow with, then deny without a filter': `(allow file-read* ${FILE})(deny file-read*)`,
      });
      const got = Object.values(outcomes).map((outcome) => outcome === 'ok');
      const expected = [true, false, false, true];
      return yesIf(
        expected.every((value, index) => value === got[index]),
        JSON.stringify(outcomes),
      );
    },
  },
  {
    probe: 'dns-socket',
    question: 'Do look-ups of names go to the socket that DNSSD_UDS_PATH names?',
    ask: (bench) =>
      bench.withFolder(async (folder) => {
        const path = join(folder, 's');
        const server = await bench.listen({ path });
        try {
          const trial: Trial = { actions: [{ resolve: 'probe.drydock.test' }] };
          const ended = await bench.attempt(trial, { DNSSD_UDS_PATH: path });
          return yesIf(server.connections() > 0, `${server.connections()} connections; ${said(ended)}`);
        } finally {
          await server.close();
        }
      }),
  },
  {
    probe: 'proxy-port',
    question: 'Does a profile keep a program to one port of localhost?',
    async ask(bench) {
      const host = '127.0.0.1';
      const own = await bench.listen({ host });
      try {
        const other = await bench.listen({ host });
        try {
          const rule = `(deny network-outbound (require-not (remote ip "localhost:${own.port}")))`;
          const actions = [own, other].map(({ port }) => ({ connect: { host, port } }));
          const ended = await bench.attempt({ profile: but(rule)!, actions });
          const [near, elsewhere] = ended.stdout.split('\n');
          return yesIf(near === 'ok' && elsewhere !== 'ok', said(ended));
        } finally {
          await other.close();
        }
      } finally {
        await own.close();
      }
    },
  },
  {
    probe: 'chroot-paths',
    question: 'Do profiles see the paths of a chroot (yes) or the host’s (no)?',
    ask: (bench) =>
      bench.withFolder(async (root) => {
        writeFileSync(join(root, 'file'), 'x');
        const look = async (path: string): Promise<string> => {
          const profile = but(`(deny file-read* ${FILE})`, { FILE: path })!;
          const ended = await bench.attempt({ loadFirst: true, root, profile, actions: [{ read: '/file' }] });
          return said(ended);
        };
        const [inside, outside] = [await look('/file'), await look(join(root, 'file'))];
        const detail = `denied as /file: ${inside}; denied as its path on the host: ${outside}`;
        if ((inside === 'ok') === (outside === 'ok')) return { answer: 'unknown', detail };
        return yesIf(inside !== 'ok', detail);
      }),
  },
  {
    probe: 'profile-after-chroot',
    question: 'Can a profile be taken in a root without files, if the library is loaded before?',
    ask: (bench) =>
      bench.withFolder(async (root) => {
        const trial: Trial = { root, profile: but('')!, actions: [{ read: '/none' }] };
        const [loaded, not] = [
          await bench.attempt({ ...trial, loadFirst: true }),
          await bench.attempt(trial),
        ];
        return yesIf(firstLine(loaded) === 'ENOENT', `loaded: ${said(loaded)}; not loaded: ${said(not)}`);
      }),
  },
  {
    probe: 'chroot-programs',
    question: 'Do programs start in a root of their own?',
    async ask(bench) {
      const { answer, detail } = await startInRoot(bench, {});
      return {
        answer,
        detail: `${detail}; System Integrity Protection allows it: ${bench.calls.allowsOwnRoots()}`,
      };
    },
  },
  {
    probe: 'private-cache',
    question: 'Do they with DYLD_SHARED_REGION=private?',
    ask: (bench) => startInRoot(bench, { DYLD_SHARED_REGION: 'private' }),
  },
  {
    probe: 'memory-limit',
    question: 'Is a process that takes more than its confirmed limit killed?',
    async ask(bench) {
      const ended = await bench.attempt({
        actions: [{ limit: 256 * MEBIBYTE }, { allocate: 768 * MEBIBYTE }],
      });
      return yesIf(firstLine(ended) === 'ok' && ended.signal === 'SIGKILL', said(ended));
    },
  },
  {
    probe: 'devfs',
    question: 'Can a device node be made, and used?',
    ask: (bench) =>
      bench.withFolder(async (folder) => {
        const path = join(folder, 'null');
        bench.calls.makeCharacterDevice(path, 0o666, statSync('/dev/null').rdev);
        writeFileSync(path, 'gone');
        return yesIf(true, path);
      }),
  },
  {
    probe: 'localhost-alias',
    question: 'Does localhost in a profile include an alias of lo0?',
    async ask(bench) {
      const alias = (how: string): Promise<Ended> =>
        bench.run('ifconfig', ['lo0', how, `${LOOPBACK_ALIAS}/32`]);
      const added = await alias('alias');
      if (added.code !== 0) throw new Error(said(added));
      try {
        const server = await bench.listen({ host: LOOPBACK_ALIAS });
        try {
          const profile = but('(deny network-outbound (require-not (remote ip "localhost:*")))')!;
          const target = { host: LOOPBACK_ALIAS, port: server.port };
          const ended = await bench.attempt({ profile, actions: [{ connect: target }] });
          return yesIf(firstLine(ended) === 'ok', said(ended));
        } finally {
          await server.close();
        }
      } finally {
        await alias('-alias');
      }
    },
  },
  {
    probe: 'pf-user-route',
    question: 'Do packets of one user go to a utun interface by a rule of pf?',
    ask: (bench) =>
      withPfRoute(bench, PROBE_UID, async ({ fd, name }) => {
        const host = '198.18.99.1';
        const trial: Trial = { uid: PROBE_UID, actions: [{ connect: { host, port: 80 } }] };
        const [packet, ended] = await Promise.all([bench.packet(fd), bench.attempt(trial)]);
        // Four bytes of address family, then the IPv4 header with its destination at 16.
        const to = packet && packet.length >= 24 ? [...packet.subarray(20, 24)].join('.') : 'nothing';
        return yesIf(to === host, `${name} has got a packet to ${to}; ${said(ended)}`);
      }),
  },
];
