/**
 * A unix socket of the host that leads to one in a machine, over SSH: how podman's clients reach the engine in their machine.
 * The work is OpenSSH's; here it is started, pointed at the machine through a port of the loopback, and started again
 * when the machine was not up yet or went away.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import type { Log } from '#common/log';
import type { Network } from '../index.ts';
import type { SshTarget } from './forwarder.ts';

/** How long until ssh is started again. */
const RETRY_MS = 1000;

/**
 * Begins to forward a socket of the host to one in a machine.
 * @returns ends it
 */
export async function forwardOverSsh(
  network: Network,
  socket: string,
  { address, port: sshPort, dest, user, identity }: SshTarget,
  log: Log,
): Promise<() => Promise<void>> {
  const port = await network.publish({
    protocol: 'tcp',
    hostAddress: '127.0.0.1',
    hostPort: 0,
    guestAddress: address,
    guestPort: sshPort,
  });
  let child: ChildProcess | undefined;
  let retry: NodeJS.Timeout | undefined;
  let isEnding = false;
  const options = [
    // As gvproxy: the machine is our own, and its key new with each of its lives.
    ...['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'BatchMode=yes', 'LogLevel=ERROR'],
    ...['ExitOnForwardFailure=yes', 'StreamLocalBindUnlink=yes', 'StreamLocalBindMask=0177'],
    ...['ServerAliveInterval=30', 'ConnectTimeout=10', 'IdentitiesOnly=yes'],
  ].flatMap((option) => ['-o', option]);
  const start = (): void => {
    const args = ['-F', 'none', '-N', '-T', '-i', identity, ...options, '-L', `${socket}:${dest}`];
    child = spawn('ssh', [...args, '-p', String(port.hostPort), '--', `${user}@127.0.0.1`], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr!.on('data', (text: Buffer) => log.debug({ socket }, text.toString().trim()));
    child.on('error', (error) => log.warn({ err: error, socket }, 'ssh cannot be started'));
    child.on('close', () => {
      child = undefined;
      if (!isEnding) retry = setTimeout(start, RETRY_MS);
    });
  };
  start();
  return async () => {
    isEnding = true;
    clearTimeout(retry);
    if (child) {
      const ended = once(child, 'close');
      child.kill();
      await ended;
    }
    await rm(socket, { force: true });
    await port.close();
  };
}
