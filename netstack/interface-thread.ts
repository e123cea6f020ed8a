/** The entry of the thread that makes one interface in another network namespace, and ends there; see interface.ts. */
import { workerData } from 'node:worker_threads';
import { errorCode, errorMessage } from '#common/errors';
import { enterNetworkNamespace } from '#common/native/ifconfig';
import { type InterfaceAnswer, type InterfaceJob, LENGTH, makeHere, READY, TEXT_AT } from './interface.ts';

const { wish, answer } = workerData as InterfaceJob;
let result: InterfaceAnswer;
try {
  enterNetworkNamespace(wish.namespacePath);
  result = { tap: makeHere(wish) };
} catch (error) {
  result = { code: errorCode(error), message: errorMessage(error) };
}
const words = new Int32Array(answer, 0, 2);
words[LENGTH] = Buffer.from(answer, TEXT_AT).write(JSON.stringify(result));
Atomics.store(words, READY, 1);
Atomics.notify(words, READY);
