/**
 * The daemon for an ordinary user: the same daemon, as root of a user namespace. Only a process with one thread can make
 * such a namespace, so a tiny program does it and then becomes Node again; this process gives it its numbers, by
 * newuidmap(1) and newgidmap(1) where the user has some in /etc/subuid, and stays to pass signals on.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { DrydockError, errorMessage } from '#common/errors';
import type { IdRange } from '#common/id-map';
import { mapText } from '#common/id-map';
import { type Instruction, machineProgram, thisMachine } from '#common/native/machine-code';
import { CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER } from '#common/native/namespace';
import { fillMemory, memoryFile, sealMemory } from '#common/native/process';
import { FIRST_FD, passedSockets } from './activation.ts';
import { findProgram } from './platform.ts';
import { makeRoomForJails } from './runtime/linux/cgroup-delegated.ts';
import { findNamed, type IdFiles, readIdFiles, subordinateIds } from './user-maps.ts';

/** What the daemon takes as orders. */
const PASSED_ON = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const PR_SET_PDEATHSIG = 1;
const AT_EMPTY_PATH = 0x1000;

/** Descriptors of the entry program: it tells that it waits for its maps, hears that they are there, and becomes Node. */
interface EntryFds {
  tell: number;
  wait: number;
  node: number;
}

/** struct sigaction of the kernel with SIG_IGN as handler. */
function ignoring(): Uint8Array {
  const action = new Uint8Array(32);
  action[0] = 1;
  return action;
}

/**
 * Makes a user namespace and waits for its maps; makes the others as its root; starts Node as process 1 of the new pid
 * namespace, which the daemon needs for pid namespaces of its own; and waits for its end. Signals that are passed on
 * reach both and are for Node.
 */
function entryProgram({ tell, wait, node }: EntryFds): Uint8Array {
  const must = (what: string): Instruction['failures'] => [{ fd: 2, text: `drydock: ${what}\n`, status: 1 }];
  const refused = 'this machine lets ordinary users make no user namespaces: run the daemon with sudo';
  const proc = Buffer.from('proc\0');
  const dieWith = (signal: number): Instruction => ({
    call: 'prctl',
    operands: [PR_SET_PDEATHSIG, signal, 0, 0, 0],
  });
  return machineProgram(thisMachine(), [
    { call: 'unshare', operands: [CLONE_NEWUSER], failures: must(refused) },
    { call: 'write', operands: [tell, 'argv', 1] },
    { call: 'read', operands: [wait, 'scratch', 1] },
    { call: 'setresgid', operands: [0, 0, 0], failures: must('the group of root is not mapped') },
    { call: 'setresuid', operands: [0, 0, 0], failures: must('root is not mapped') },
    { call: 'unshare', operands: [CLONE_NEWNS | CLONE_NEWPID], failures: must(refused) },
    dieWith(constants.signals.SIGKILL),
    {
      call: 'clone',
      operands: [constants.signals.SIGCHLD, 0, 0, 0, 0],
      parent: PASSED_ON.map((signal) => ({
        call: 'rt_sigaction',
        operands: [constants.signals[signal], ignoring(), 0, 8],
      })),
    },
    // However the process that watches over it ends, the daemon stops its containers and ends too.
    dieWith(constants.signals.SIGTERM),
    {
      call: 'mount',
      operands: [proc, Buffer.from('/proc\0'), proc, 0, 0],
      failures: must('no /proc can be mounted here, as in some containers: run the daemon with sudo'),
    },
    {
      call: 'execveat',
      operands: [node, Buffer.from('\0'), 'argv', 'envp', AT_EMPTY_PATH],
      failures: must('Node cannot be started again'),
    },
  ]);
}

/** What newuidmap is called with: the user itself as root, then the subordinate numbers. */
export function rootlessRanges(own: number, subordinate: readonly IdRange[]): IdRange[] {
  const ranges: IdRange[] = [{ inside: 0, outside: own, length: 1 }];
  for (const { inside, outside, length } of subordinate) ranges.push({ inside: inside + 1, outside, length });
  return ranges;
}

/** The numbers that a user may map, and why it is only one where it is. */
export function rootlessMaps(
  user: { uid: number; gid: number },
  files: IdFiles,
  has: (program: string) => boolean,
): { uids: IdRange[]; gids: IdRange[]; warning?: string } {
  const id = String(user.uid);
  const named = findNamed(files.passwd, id) ?? { name: id, id };
  const uids = subordinateIds(files.subuid, named);
  const gids = subordinateIds(files.subgid, named);
  const helpers = has('newuidmap') && has('newgidmap');
  if (helpers && uids.length > 0 && gids.length > 0)
    return { uids: rootlessRanges(user.uid, uids), gids: rootlessRanges(user.gid, gids) };
  const why = helpers
    ? `/etc/subuid and /etc/subgid have no numbers for ${named.name} (as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${named.name})`
    : 'newuidmap and newgidmap are not installed (Debian and Ubuntu: apt-get install uidmap)';
  return {
    uids: rootlessRanges(user.uid, []),
    gids: rootlessRanges(user.gid, []),
    warning: `containers have root as their only user: ${why}`,
  };
}

function writeMaps(pid: number, maps: { uids: IdRange[]; gids: IdRange[] }): void {
  try {
    if (maps.uids.length === 1) {
      writeFileSync(`/proc/${pid}/setgroups`, 'deny');
      writeFileSync(`/proc/${pid}/uid_map`, mapText(maps.uids));
      writeFileSync(`/proc/${pid}/gid_map`, mapText(maps.gids));
      return;
    }
    for (const [program, ranges] of [
      ['newuidmap', maps.uids],
      ['newgidmap', maps.gids],
    ] as const) {
      const args = ranges.flatMap(({ inside, outside, length }) => [inside, outside, length]).map(String);
      const { status, stderr, error } = spawnSync(program, [String(pid), ...args], { encoding: 'utf8' });
      if (status !== 0) throw new Error(`${program}: ${error ? errorMessage(error) : stderr.trim()}`);
    }
  } catch (error) {
    throw new DrydockError(
      'ERR_NOT_ROOT',
      `a user namespace gets no numbers (${errorMessage(error)}): run the daemon with sudo`,
      { cause: error },
    );
  }
}

/** A trouble with control groups costs containers their limits, which they are told of. */
function makeRoom(warn: (text: string) => void): void {
  try {
    makeRoomForJails();
  } catch (error) {
    warn(`the control group of this command could not be made ready for limits: ${errorMessage(error)}`);
  }
}

/**
 * Runs this very command again as root of a user namespace, to its end. Returns only by throwing.
 *
 * @param warn is told what containers will have to do without
 * @throws DrydockError ERR_NOT_ROOT where that is not possible
 */
export async function runInUserNamespace(warn: (text: string) => void): Promise<never> {
  const { warning, ...maps } = rootlessMaps(
    { uid: process.getuid!(), gid: process.getgid!() },
    readIdFiles(),
    (name) => findProgram(name) !== undefined,
  );
  if (warning) warn(warning);
  makeRoom(warn);
  const passed = passedSockets(process.env, process.pid);
  const tell = FIRST_FD + passed.length;
  const fds = { tell, wait: tell + 1, node: tell + 2 };
  const program = memoryFile('drydock-rootless');
  fillMemory(program, entryProgram(fds));
  sealMemory(program);
  const node = openSync(process.execPath, 'r');
  const child = spawn(`/proc/self/fd/${program}`, [...process.execArgv, ...process.argv.slice(1)], {
    argv0: process.argv0,
    // A Ctrl-C is for this process, which passes it on.
    detached: true,
    stdio: ['inherit', 'inherit', 'inherit', ...passed, 'pipe', 'pipe', node],
    // The daemon is process 1 of its pid namespace, and the sockets of a service manager are for it.
    env: { ...process.env, ...(passed.length > 0 && { LISTEN_PID: '1' }) },
  });
  closeSync(program);
  closeSync(node);
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
  const [told, wait] = [child.stdio[fds.tell], child.stdio[fds.wait]] as [
    NodeJS.ReadableStream,
    NodeJS.WritableStream,
  ];
  wait.on('error', () => {});
  for (const signal of PASSED_ON) process.on(signal, () => process.kill(-child.pid!, signal));
  const isReady = await Promise.race([
    new Promise<boolean>((resolve) => told.once('data', () => resolve(true))),
    ended.then(() => false),
  ]);
  if (isReady) {
    try {
      writeMaps(child.pid!, maps);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
    wait.end('.');
  }
  process.exit(await ended);
}
