/**
 * The launcher: the process that becomes a container's program. The daemon starts it ahead of time, with the
 * container's future pipes as descriptors 0 to 2, and it waits for work on {@link CONTROL_FD}. All it does is
 * synchronous, on Node's main thread, since namespaces and identity belong to a thread and execve ends the others.
 *
 * It may be in the pid namespace of a hostile container while it works (`join`), hence no dump, no ptrace, and no
 * trust in a path of the container. When the daemon goes away the channel reads as ended, and so does the launcher.
 */
import { readSync, writeSync } from 'node:fs';
import { errorMessage } from '#common/errors';
import { LaunchFailure, step } from './failure.ts';
import { becomeInit } from './init.ts';
import { becomeProgram, detachStreams, execute, failToExecute, startProgram } from './program.ts';
import { CONTROL_FD, type FromLauncher, type ToLauncher } from './protocol.ts';
import { enter, enterNamespaces } from './steps.ts';
import { linuxSystem } from './system.ts';

const system = linuxSystem;
/** A specification with a large environment is some hundred kilobytes. */
const READ_BYTES = 65_536;

let pending = '';

/** Waits for the daemon's next line. Ends the process when the daemon is gone. */
function receive(): ToLauncher {
  const chunk = Buffer.alloc(READ_BYTES);
  const parts: Buffer[] = [];
  while (!pending.includes('\n')) {
    const length = readSync(CONTROL_FD, chunk, 0, READ_BYTES, null);
    if (length === 0) process.exit(0);
    parts.push(Buffer.from(chunk.subarray(0, length)));
    // 10 is the line's end, which UTF-8 has nowhere else.
    if (chunk.subarray(0, length).includes(10)) pending = Buffer.concat(parts).toString();
  }
  const end = pending.indexOf('\n');
  const line = pending.slice(0, end);
  pending = pending.slice(end + 1);
  return JSON.parse(line);
}

function send(message: FromLauncher): void {
  writeSync(CONTROL_FD, `${JSON.stringify(message)}\n`);
}

function run(): never {
  step('hide from other processes', () => system.setUndumpable());
  process.umask(0);
  const message = receive();
  if (message.type === 'run') throw new Error('nothing to run yet');
  if (message.type === 'hold') {
    enterNamespaces(system, message.namespaces);
    send({ type: 'unshared' });
    receive();
    process.exit(0);
  }
  const spec = message.type === 'prepare' ? message.spec.process : message.process;
  const terminal = enter(system, message, () => send({ type: 'unshared' }));
  send(terminal?.master === undefined ? { type: 'ready' } : { type: 'ready', terminalFd: terminal.master });
  receive();
  if (message.type === 'prepare' && message.spec.init) {
    step('attach the standard streams', () => detachStreams(system));
    send({ type: 'executing' });
    becomeInit(system);
  }
  const confinement = message.type === 'confine' ? message.confinement : undefined;
  const { path, env } = becomeProgram(system, spec, terminal, message.filter, confinement);
  if (message.type === 'join' && message.target !== undefined) {
    const started = startProgram(system, path, spec.args, env);
    send(typeof started === 'number' ? { type: 'executing', pid: started } : { type: 'executing' });
    if (typeof started !== 'number') failToExecute(path, started);
    // The daemon takes the child over and ends this process.
    receive();
    process.exit(0);
  }
  send({ type: 'executing' });
  execute(system, path, spec.args, env);
}

try {
  run();
} catch (error) {
  const failure =
    error instanceof LaunchFailure ? error : new LaunchFailure('step', 'launch', '', errorMessage(error));
  const { kind, step: name, code, message } = failure;
  send({ type: 'failed', kind, step: name, code, message });
  process.exit(1);
}
