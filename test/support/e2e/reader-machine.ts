/**
 * What a reader of the documentation has: a machine where the places that commands name are free. Namespaces of mounts, processes and network
 * with empty folders there; nothing of it is seen outside, and all of it ends with {@link ReaderMachine.remove}.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { endWithTests, type Finished, finish, until } from './daemon.ts';

const TREE = fileURLToPath(new URL('../../..', import.meta.url)).replace(/\/$/, '');
const PLACES = ['/run', '/var/lib', '/etc/systemd/system', '/mnt', '/root', '/tmp'];

/** Programs that cannot be themselves here: nobody is asked for a password, and no service manager runs. */
const STAND_INS: Readonly<Record<string, string>> = {
  sudo: 'exec "$@"',
  systemctl: 'echo "LoadState=loaded ActiveState=inactive"',
  journalctl: 'echo "a line of the log"',
};

/** A first daemon makes its image before it is ready. */
const READY_MS_MAX = 180_000;

/** Makes the folders. Bind mounts come first: what they show may lie in a place that is covered. */
const SET_UP = `set -e
mount -t tmpfs none /srv
mkdir /srv/tree /srv/bin /srv/reader
mount --bind '${TREE}' /srv/tree
for place in ${PLACES.join(' ')}; do mkdir -p $place && mount -t tmpfs none $place; done
ln -s /srv/tree/dist/daemon/bin.js /srv/bin/drydock
${Object.entries(STAND_INS)
  .map(([name, text]) => `printf '#!/bin/sh\\n%s\\n' '${text}' > /srv/bin/${name}`)
  .join('\n')}
chmod 755 /srv/bin/* /srv/tree/dist/daemon/bin.js
ip link set lo up
echo ready
exec sleep infinity`;

/** A program that goes on until it is ended. */
export interface Serving {
  /** Ends it as Ctrl-C does. */
  end(): Promise<Finished>;
}

/** The machine. */
export class ReaderMachine {
  readonly #keeper: ChildProcess;
  readonly #pid: number;

  private constructor(keeper: ChildProcess, pid: number) {
    this.#keeper = keeper;
    this.#pid = pid;
  }

  static async make(): Promise<ReaderMachine> {
    const namespaces = ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const keeper = spawn('unshare', [...namespaces, 'bash', '-c', SET_UP], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    endWithTests(keeper);
    let said = '';
    for (const stream of [keeper.stdout!, keeper.stderr!]) stream.on('data', (chunk) => (said += chunk));
    await until(() => {
      if (keeper.exitCode !== null) throw new Error(said);
      return said.includes('ready');
    }, 'the namespaces are set up');
    const children = readFileSync(`/proc/${keeper.pid}/task/${keeper.pid}/children`, 'utf8');
    return new ReaderMachine(keeper, Number(children.trim()));
  }

  #spawn(command: string): ChildProcess {
    const enter = ['--target', String(this.#pid), '--mount', '--net', '--pid', '--wdns=/srv/reader'];
    const env = {
      PATH: `/srv/bin:${process.env.PATH}`,
      HOME: '/root',
      NO_COLOR: '1',
      DOCKER_CLI_HINTS: 'false',
    };
    return spawn('nsenter', [...enter, 'bash', '-c', command], { stdio: ['ignore', 'pipe', 'pipe'], env });
  }

  /** Runs a line of the shell to its end. */
  run(command: string): Promise<Finished> {
    return finish(this.#spawn(command));
  }

  /** Starts a line of the shell that goes on, and waits until it has said `ready`. */
  async serve(command: string, ready: RegExp): Promise<Serving> {
    // The shell becomes the program, whose pid in this namespace is that of nsenter's child.
    const child = this.#spawn(`exec ${command}`);
    let said = '';
    for (const stream of [child.stdout!, child.stderr!]) stream.on('data', (chunk) => (said += chunk));
    const ended = finish(child);
    await until(
      () => {
        if (child.exitCode !== null) throw new Error(`${command} ended with ${child.exitCode}: ${said}`);
        return ready.test(said);
      },
      `${command} says that it is ready; it said: ${said}`,
      READY_MS_MAX,
    );
    return {
      end: () => {
        const [pid] = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ');
        process.kill(Number(pid), 'SIGINT');
        return ended;
      },
    };
  }

  async remove(): Promise<void> {
    this.#keeper.kill('SIGKILL');
    if (this.#keeper.exitCode === null && this.#keeper.signalCode === null) await once(this.#keeper, 'exit');
  }
}
