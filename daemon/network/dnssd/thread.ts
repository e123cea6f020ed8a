/** The entry of the thread that serves names: see loop.ts. */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Kqueue } from '#common/native/darwin/kqueue';
import { LocalSockets } from '#common/native/darwin/local-sockets';
import { type NamesCommand, NamesLoop } from './loop.ts';

const EVENTS_MAX = 64;

const port = workerData as MessagePort;
const loop = new NamesLoop(new LocalSockets(), new Kqueue(EVENTS_MAX), (report) => port.postMessage(report));
for (;;) {
  for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port))
    loop.obey(next.message as NamesCommand);
  loop.turn();
}
