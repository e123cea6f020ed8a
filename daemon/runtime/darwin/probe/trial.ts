/**
 * One trial: a process of its own confines itself and then does things, and tells how each went. The child's part; it is
 * Node before and after, so that nothing of a root must be startable.
 */
import { spawnSync } from 'node:child_process';
import { lookup } from 'node:dns/promises';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { errorCode, errorMessage } from '#common/errors';
import type { DarwinCalls } from '#common/native/darwin/calls';

/** What is done, one thing after another. */
export type Action =
  | { read: string }
  | { connect: { host: string; port: number } }
  | { resolve: string }
  /** Runs a program to its end. */
  | { run: string[]; env?: Record<string, string> }
  /** Becomes a program; nothing comes after it. */
  | { become: string[] }
  /** Has the kernel limit this process. */
  | { limit: number }
  /** Takes memory and touches it. */
  | { allocate: number };

/** How the process confines itself, in this order, and what it does then. */
export interface Trial {
  /** Whether the sandbox's library is loaded before the root changes. */
  loadFirst?: boolean;
  root?: string;
  uid?: number;
  profile?: { text: string; parameters: Record<string, string> };
  actions: Action[];
}

const CONNECT_MS_MAX = 3000;
const BLOCK_BYTES = 1 << 20;

/** Confines this process, does the actions, and tells the outcome of each as it is known. @throws what confining says */
export async function runTrial(
  darwin: DarwinCalls,
  { loadFirst, root, uid, profile, actions }: Trial,
  tell: (outcome: string) => void,
): Promise<void> {
  if (loadFirst) darwin.loadSandboxLibrary();
  if (root !== undefined) darwin.changeRoot(root);
  if (uid !== undefined) darwin.becomeUser(uid);
  if (profile) darwin.confine(profile.text, profile.parameters);
  for (const action of actions) {
    try {
      tell(await act(darwin, action));
    } catch (error) {
      tell(errorCode(error) ?? errorMessage(error));
    }
  }
}

/** `ok`, or what there is to say. */
async function act(darwin: DarwinCalls, action: Action): Promise<string> {
  if ('read' in action) {
    readFileSync(action.read);
    return 'ok';
  }
  if ('connect' in action) return connectTo(action.connect);
  if ('resolve' in action) return (await lookup(action.resolve)).address;
  if ('limit' in action) return darwin.limitMemory(process.pid, action.limit) ? 'ok' : 'not confirmed';
  if ('allocate' in action) {
    const held: Buffer[] = [];
    for (let bytes = 0; bytes < action.allocate; bytes += BLOCK_BYTES)
      held.push(Buffer.alloc(BLOCK_BYTES, 1));
    return `${held.length} MiB`;
  }
  if ('run' in action) {
    const [program = '', ...args] = action.run;
    const { status, signal, error } = spawnSync(program, args, { env: action.env ?? {} });
    if (error) throw error;
    return status === 0 ? 'ok' : `${signal ?? `exit code ${status}`}`;
  }
  darwin.resetSignals();
  for (const fd of [0, 1, 2]) darwin.setCloseOnExec(fd, false);
  return darwin.execve(action.become[0] ?? '', action.become, []);
}

function connectTo({ host, port }: { host: string; port: number }): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, timeout: CONNECT_MS_MAX });
    socket.once('connect', () => resolve('ok'));
    socket.once('error', reject);
    socket.once('timeout', () => resolve('no answer'));
    for (const event of ['connect', 'timeout']) socket.once(event, () => socket.destroy());
  });
}
