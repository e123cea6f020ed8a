/**
 * The launcher: the process that becomes a container's program. The daemon starts it ahead of time, with the
 * container's future pipes as descriptors 0 to 2, and it waits for work on {@link CONTROL_FD}. All it does is
 * synchronous, on Node's main thread, since namespaces and identity belong to a thread and execve ends the others.
 *
 * It may be in the pid namespace of a hostile container while it works (`join`), hence no dump, no ptrace, and no
 * trust in a path of the container. When the daemon goes away the channel reads as ended, and so does the launcher.
 */
import { closeSync, openSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { errorMessage } from '#common/errors';
import type { PseudoTerminal } from '#common/native/tty';
import type { JailSpec, NamespaceMode, ProcessSpec } from '../runtime/runtime.ts';
import { LaunchFailure, step } from './failure.ts';
import { becomeInit } from './init.ts';
import {
  attachStreams,
  detachStreams,
  dropPowers,
  environment,
  execute,
  failToExecute,
  findProgram,
  startProgram,
  takeIdentity,
} from './program.ts';
import { CONTROL_FD, type FromLauncher, TARGET_FD, type ToLauncher } from './protocol.ts';
import { enterRoot, openTerminalInside } from './root.ts';
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

/** Namespaces by the flag that makes them and the file that names them. */
const KINDS: [kind: keyof JailSpec['namespaces'], flag: number, file: string][] = [
  ['network', system.CLONE_NEWNET, 'net'],
  ['ipc', system.CLONE_NEWIPC, 'ipc'],
  ['uts', system.CLONE_NEWUTS, 'uts'],
  ['cgroup', system.CLONE_NEWCGROUP, 'cgroup'],
];

function enterNamespaces(namespaces: JailSpec['namespaces']): void {
  let own = system.CLONE_NEWNS;
  for (const [kind, flag, file] of KINDS) {
    const mode: NamespaceMode = namespaces[kind];
    if (mode === 'private') own |= flag;
    else if (mode !== 'host') {
      step(`join the ${kind} namespace of process ${mode.pid}`, () => {
        const fd = openSync(`/proc/${mode.pid}/ns/${file}`, 'r');
        system.setns(fd, flag);
        closeSync(fd);
      });
    }
  }
  step('make namespaces', () => system.unshare(own));
  if (namespaces.network === 'private') step('bring up the loopback interface', () => system.loopbackUp());
}

/** Through the host's /proc: which namespace a sysctl belongs to is decided by who writes. */
function setKernelParameters(spec: JailSpec): void {
  for (const [name, value] of Object.entries(spec.sysctls)) {
    step(`set ${name}`, () => writeFileSync(`/proc/sys/${name.replaceAll('.', '/')}`, value));
  }
}

function setOomScore(spec: ProcessSpec): void {
  const score = spec.oomScoreAdj;
  if (score === undefined) return;
  step('set the OOM score', () => writeFileSync('/proc/self/oom_score_adj', `${score}`));
}

function prepare(message: ToLauncher & { type: 'prepare' }): PseudoTerminal | undefined {
  const { cgroups } = message;
  // The terminal is the program's, which joins the jail when its process 1 is there.
  const spec = message.spec.init
    ? { ...message.spec, process: { ...message.spec.process, terminal: false } }
    : message.spec;
  step('make a session keyring', () => system.newSessionKeyring(`_ses.${spec.id}`));
  setOomScore(spec.process);
  enterNamespaces(spec.namespaces);
  send({ type: 'unshared' });
  if (spec.namespaces.uts === 'private') {
    step('set the host name', () => system.setHostname(spec.hostname));
    if (spec.domainname) step('set the domain name', () => system.setDomainname(spec.domainname));
  }
  setKernelParameters(spec);
  return enterRoot(system, spec, cgroups);
}

function join({ process: spec, target }: ToLauncher & { type: 'join' }): PseudoTerminal | undefined {
  setOomScore(spec);
  step('join the container', () => {
    system.unshare(system.CLONE_FS);
    const pidfd = target === undefined ? TARGET_FD : system.pidfdOpen(target);
    const all =
      (target === undefined ? 0 : system.CLONE_NEWPID) |
      system.CLONE_NEWNS |
      system.CLONE_NEWNET |
      system.CLONE_NEWIPC |
      system.CLONE_NEWUTS |
      system.CLONE_NEWCGROUP;
    system.setns(pidfd, all);
    closeSync(pidfd);
  });
  step('make a session keyring', () => system.newSessionKeyring('_ses.exec'));
  if (!spec.terminal) return undefined;
  return step('open a terminal', () => {
    const root = openSync('/', system.O_PATH);
    try {
      return openTerminalInside(system, root);
    } finally {
      closeSync(root);
    }
  });
}

function run(): never {
  step('hide from other processes', () => system.setUndumpable());
  process.umask(0);
  const message = receive();
  if (message.type === 'run') throw new Error('nothing to run yet');
  if (message.type === 'hold') {
    enterNamespaces(message.namespaces);
    send({ type: 'unshared' });
    receive();
    process.exit(0);
  }
  const spec = message.type === 'prepare' ? message.spec.process : message.process;
  const terminal = message.type === 'prepare' ? prepare(message) : join(message);
  send(terminal ? { type: 'ready', terminalFd: terminal.master } : { type: 'ready' });
  receive();
  if (message.type === 'prepare' && message.spec.init) {
    step('attach the standard streams', () => detachStreams(system));
    send({ type: 'executing' });
    becomeInit(system);
  }
  step('attach the standard streams', () => attachStreams(system, spec, terminal));
  const identity = takeIdentity(system, spec);
  const env = environment(spec.env, identity);
  const path = findProgram(spec.args[0] ?? '', env);
  dropPowers(system, spec, identity, message.filter);
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
