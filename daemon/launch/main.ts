/**
 * The launcher: the process that becomes a container's program. The daemon starts it ahead of time, with the
 * container's future pipes as descriptors 0 to 2, and it waits for work on {@link CONTROL_FD}. All it does is
 * synchronous, on Node's main thread, since namespaces and identity belong to a thread and execve ends the others.
 *
 * It may be in the pid namespace of a hostile container while it works (`join`), hence no dump, no ptrace, and no
 * trust in a path of the container. When the daemon goes away the channel reads as ended, and so does the launcher.
 */
import { receive, send, speakUntilTheEnd } from './channel.ts';
import { step } from './failure.ts';
import { becomeInit } from './init.ts';
import { becomeProgram, detachStreams, execute, failToExecute, startProgram } from './program.ts';
import { enter, enterNamespaces } from './steps.ts';
import { linuxSystem } from './system.ts';

const system = linuxSystem;

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
  const prepared = enter(system, message, () => send({ type: 'unshared' }));
  const terminalFd = prepared.terminal?.master;
  send(terminalFd === undefined ? { type: 'ready' } : { type: 'ready', terminalFd });
  receive();
  if (message.type === 'prepare' && message.spec.init) {
    step('attach the standard streams', () => detachStreams(system));
    send({ type: 'executing' });
    becomeInit(system, prepared.userFd, message.user?.maps);
  }
  const program = becomeProgram(system, spec, prepared, message);
  if (message.type === 'join' && message.target !== undefined) {
    const { path, env } = program;
    const started = startProgram(system, path, spec.args, env);
    send(typeof started === 'number' ? { type: 'executing', pid: started } : { type: 'executing' });
    if (typeof started !== 'number') failToExecute(path, started);
    // The daemon takes the child over and ends this process.
    receive();
    process.exit(0);
  }
  send({ type: 'executing' });
  execute(system, program, spec.args);
}

speakUntilTheEnd(run);
