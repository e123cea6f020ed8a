/**
 * Every command of the documentation's `sh` blocks, which are those of --help and the man pages too: run as they stand, on a machine where
 * the places that they name are free.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allPages, fences, readPage as read } from '../support/e2e/pages.ts';
import { ReaderMachine, type Serving } from '../support/e2e/reader-machine.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { lacking } from '../support/requirements.ts';

/** The commands of a page: a line each, comments and notes behind them left out. */
function commandsOf(page: string): string[] {
  return fences(read(page))
    .filter(({ info }) => info === 'sh')
    .flatMap(({ text }) => text.replaceAll('\\\n', ' ').split('\n'))
    .map((line) => line.replace(/\s+# .*$/, ''))
    .filter((line) => line !== '' && !line.startsWith('#'));
}

/** What the reader has made before: files, folders, namespaces and interfaces that commands name. */
const BEFORE = `set -e
echo '{}' > daemon.json
mkdir -p ~/src /mnt/src ~/.docker
mkdir -p /run/netns && ip netns add lab
ip link add eth1 type veth peer name eth1-peer && ip link set eth1-peer up && ip address add 10.0.0.1/24 dev eth1
ip address add fd00:1::1/64 dev eth1 nodad && ip link set eth1 up
mkdir -p /run/sshd ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys && cp ~/.ssh/id_ed25519 /run/sshd/key
echo "linux-host $(cut -d' ' -f1,2 ~/.ssh/id_ed25519.pub)" > ~/.ssh/known_hosts
echo '127.0.0.1 localhost linux-host' > /run/hosts && mount --bind /run/hosts /etc/hosts
/usr/sbin/sshd -f /dev/null -h /run/sshd/key -o StrictModes=no`;

/** Commands that go on until Ctrl-C, and what they say when they are ready. */
const SERVERS: readonly [RegExp, RegExp][] = [
  [/drydock daemon (?!.*--validate)|drydock daemon$/, / is ready\. /],
  [/drydock net (?!top)/, /is ready/],
  [/drydock fs mount/, /Ctrl-C or umount ends it/],
];

/** Those that others talk to: started first, ended last. */
const KEPT = [
  'sudo drydock daemon',
  'drydock net --listen unix:///tmp/net.sock --listen-qemu unix:///tmp/qemu.sock',
];

/** Those that need the places of a daemon that has ended. */
const NEEDS_NO_DAEMON = /drydock (fsck|service)|--dashboard/;

/** Those that must fail here, with what they say: others exit with 0. */
const FAILURES: readonly [RegExp, number, RegExp][] = [
  [/doctor --probe/, 1, /asks what only macOS can answer/],
  [/service status/, 3, /nobody answers|"engine"|installed/],
];

const pages = allPages().filter((page) => commandsOf(page).length > 0);

describe.skipIf(lacking(...E2E_NEEDS, 'unshare', 'nsenter', 'ip', 'jq', 'sshd', 'ssh-keygen'))(
  'commands in the documentation',
  () => {
    let machine: ReaderMachine;
    beforeAll(async () => {
      machine = await ReaderMachine.make();
    });
    afterAll(() => machine?.remove());

    /** Runs a command to its end, or until it is ready. @returns what must be ended */
    async function type(command: string): Promise<Serving | undefined> {
      const [, ready] = SERVERS.find(([which]) => which.test(command)) ?? [];
      if (ready !== undefined) return machine.serve(command.replace(/^sudo /, ''), ready);
      const { code, stdout, stderr } = await machine.run(command);
      const [, expected = 0, words = /^/] = FAILURES.find(([which]) => which.test(command)) ?? [];
      expect(code, `$ ${command}\n${stdout}${stderr}`).toBe(expected);
      expect(`${stdout}${stderr}`, `$ ${command}`).toMatch(words);
      return undefined;
    }

    async function endOf(command: string, serving: Serving | undefined): Promise<void> {
      if (serving) expect((await serving.end()).code, `$ ${command}`).toBe(0);
    }

    it('are run as they stand and do what they say', async () => {
      expect(await machine.run(BEFORE)).toMatchObject({ code: 0, stderr: '' });
      const commands = [...new Set([...KEPT, ...pages.flatMap(commandsOf)])];
      const kept = new Map<string, Serving | undefined>();
      for (const command of commands.filter((each) => !NEEDS_NO_DAEMON.test(each))) {
        const serving = await type(command);
        if (KEPT.includes(command)) kept.set(command, serving);
        else await endOf(command, serving);
      }
      expect(pages.flatMap(commandsOf)).toEqual(expect.arrayContaining(KEPT));
      for (const [command, serving] of kept) await endOf(command, serving);
      for (const command of commands.filter((each) => NEEDS_NO_DAEMON.test(each)))
        await endOf(command, await type(command));
    });
  },
);
