/** The main thread's side of the sockets of names: one thread for all of them, which lives as long as there is any. */
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { compiledEntry } from '#common/entry';
import type { ServeNames } from '../proxied/jails.ts';
import type { NamesCommand, NamesReport } from './loop.ts';

/** A thread that was started. */
export interface NamesThread {
  post(command: NamesCommand): void;
  end(): Promise<unknown>;
}

function startThread(told: (report: NamesReport) => void): NamesThread {
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(compiledEntry('daemon/network/dnssd/thread'), {
    name: 'drydock-names',
    workerData: port2 satisfies MessagePort,
    transferList: [port2],
    trackUnmanagedFds: false,
    execArgv: [],
  });
  worker.unref();
  port1.unref();
  port1.on('message', told);
  const end = async (): Promise<void> => {
    port1.close();
    await worker.terminate();
  };
  return { post: (command) => port1.postMessage(command), end };
}

interface Served {
  resolve: (name: string) => Promise<string[]>;
  ready: (error: string | undefined) => void;
}

/** Serves names for as many jails as want it. @param start how the thread is started */
export function namesServer(
  start: (told: (report: NamesReport) => void) => NamesThread = startThread,
): ServeNames {
  const served = new Map<number, Served>();
  let thread: NamesThread | undefined;
  let next = 1;
  const told = (report: NamesReport): void => {
    if ('listening' in report) {
      served.get(report.listening)?.ready(report.error);
      return;
    }
    const { asking, client, question } = report;
    const answer = (addresses: string[]): void => thread?.post({ answered: client, question, addresses });
    const asked = served.get(asking)?.resolve(question.name.replace(/\.$/, '')) ?? Promise.resolve([]);
    // Whatever is wrong with a name, there is no such record.
    asked.then(answer, () => answer([]));
  };
  const forget = async (listener: number): Promise<void> => {
    thread?.post({ unlisten: listener });
    served.delete(listener);
    if (served.size > 0) return;
    const last = thread;
    thread = undefined;
    await last?.end();
  };
  return async (path, resolve) => {
    thread ??= start(told);
    const listener = next++;
    const error = await new Promise<string | undefined>((ready) => {
      served.set(listener, { resolve, ready });
      thread!.post({ listen: listener, path });
    });
    if (error !== undefined) {
      await forget(listener);
      throw new Error(error);
    }
    return { close: () => forget(listener) };
  };
}
