/**
 * Making a guest's interface: a TAP in the guest's network namespace, configured there. A thread can come back from that
 * namespace only with power over its own one, which root of a user namespace does not have; there the work is done by a
 * thread that is made for it and ends.
 */
import { Worker } from 'node:worker_threads';
import { compiledEntry } from '#common/entry';
import { configureInterface, type InterfaceConfig, inNetworkNamespace } from '#common/native/ifconfig';
import { close } from '#common/native/socket';
import { openTap, type Tap } from '#common/native/tap';
import { inUserNamespace } from '#common/user-namespace';

/** What to make. */
export interface InterfaceWish {
  namespacePath: string;
  config: InterfaceConfig;
  /** Bytes of the header before each frame. */
  headerBytes: number;
  /** Whether checksums and segmentation may be left to the kernel. */
  offload: boolean;
}

/** The thread's answer is JSON in shared memory, after its length; the first word tells that it is there. */
const ANSWER_BYTES = 4096;
export const READY = 0;
export const LENGTH = 1;
export const TEXT_AT = 8;
const THREAD_TIMEOUT_MS = 20_000;

/** What the thread is given. */
export interface InterfaceJob {
  wish: InterfaceWish;
  answer: SharedArrayBuffer;
}

/** What the thread answers. */
export type InterfaceAnswer = { tap: Tap } | { code: string | undefined; message: string };

/** The work itself, for a thread that is in the namespace. */
export function makeHere({ config, headerBytes, offload }: InterfaceWish): Tap {
  const tap = openTap(config.name, headerBytes, offload);
  try {
    configureInterface(config);
    return tap;
  } catch (error) {
    close(tap.fd);
    throw error;
  }
}

/** Makes and configures the TAP. @throws SyscallError, or an error with the code of one */
export function makeTapIn(wish: InterfaceWish): Tap {
  if (!inUserNamespace) return inNetworkNamespace(wish.namespacePath, () => makeHere(wish));
  const answer = new SharedArrayBuffer(ANSWER_BYTES);
  const words = new Int32Array(answer, 0, 2);
  const worker = new Worker(compiledEntry('netstack/interface-thread'), {
    workerData: { wish, answer } satisfies InterfaceJob,
    name: 'drydock-interface',
    trackUnmanagedFds: false,
    execArgv: [],
  });
  worker.on('error', () => {});
  // This thread must have the interface before it goes on, and its loop is not Node's.
  if (Atomics.wait(words, READY, 0, THREAD_TIMEOUT_MS) === 'timed-out') {
    void worker.terminate();
    throw new Error('the thread that makes an interface did not answer');
  }
  const text = Buffer.from(answer, TEXT_AT, words[LENGTH]).toString();
  const result: InterfaceAnswer = JSON.parse(text);
  if ('tap' in result) return result.tap;
  throw Object.assign(new Error(result.message), { code: result.code });
}
