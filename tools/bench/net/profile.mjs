// A CPU profile of a network's thread. It does not return to its event loop, so `node --cpu-prof` never writes one of it; but
// the inspector's messages reach it through the main thread, since it runs JavaScript in every turn.
import { once } from 'node:events';
import { Session } from 'node:inspector';

/** Begins to profile the only worker of this process. The function that is returned ends it and gives the profile. */
export async function profileWorker() {
  const session = new Session();
  session.connect();
  const post = (method, params) =>
    new Promise((resolve, reject) => {
      session.post(method, params, (error) => (error ? reject(new Error(error.message)) : resolve()));
    });
  const attached = once(session, 'NodeWorker.attachedToWorker');
  await post('NodeWorker.enable', { waitForDebuggerOnStart: false });
  const [{ params }] = await attached;
  const { sessionId } = params;
  const pending = new Map();
  session.on('NodeWorker.receivedMessageFromWorker', ({ params: { message } }) => {
    const { id, result } = JSON.parse(message);
    pending.get(id)?.(result);
    pending.delete(id);
  });
  let nextId = 1;
  const ask = async (method) => {
    const id = nextId++;
    const answer = new Promise((resolve) => pending.set(id, resolve));
    await post('NodeWorker.sendMessageToWorker', { sessionId, message: JSON.stringify({ id, method }) });
    return answer;
  };
  await ask('Profiler.enable');
  await ask('Profiler.start');
  return async () => {
    const { profile } = await ask('Profiler.stop');
    session.disconnect();
    return profile;
  };
}

/** All functions of the C library are called by one piece of code, so the profiler gives them the name of any of them. */
const NATIVE = 'system calls';

/** The functions that took most of the time themselves, as shares of the whole. */
export function hottest({ nodes, samples, timeDeltas }, count) {
  const names = new Map(
    nodes.map(({ id, callFrame: { functionName, url, lineNumber } }) => [
      id,
      url
        ? `${functionName || '(anonymous)'} ${url.split('/').slice(-2).join('/')}:${lineNumber + 1}`
        : functionName.startsWith('(') || functionName === ''
          ? functionName
          : NATIVE,
    ]),
  );
  const times = new Map();
  let total = 0;
  samples.forEach((id, index) => {
    const name = names.get(id);
    times.set(name, (times.get(name) ?? 0) + timeDeltas[index]);
    total += timeDeltas[index];
  });
  return [...times]
    .sort(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([name, time]) => ({ name, share: time / total }));
}
