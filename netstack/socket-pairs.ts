/** Streams between the main thread and a network's: socket pairs of which the network's thread owns one end. */
import { Socket } from 'node:net';
import { close, socketPair } from '#common/native/socket';

/** Makes a pair, and gives one end away; what fails there leaves neither open. */
export async function sharePair<T>(give: (fd: number) => Promise<T>): Promise<{ socket: Socket; given: T }> {
  const [own, theirs] = socketPair();
  const socket = new Socket({ fd: own, allowHalfOpen: true });
  try {
    return { socket, given: await give(theirs) };
  } catch (error) {
    close(theirs);
    socket.destroy();
    throw error;
  }
}

/** Waits for the byte by which the thread says that a guest has accepted; false when the socket ends without it. */
export function firstByte(socket: Socket): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (accepted: boolean): void => {
      socket.off('readable', look).off('end', refuse).off('error', refuse).off('close', refuse);
      resolve(accepted);
    };
    const look = (): void => {
      if (socket.read(1) !== null) settle(true);
    };
    const refuse = (): void => settle(false);
    socket.on('readable', look).on('end', refuse).on('error', refuse).on('close', refuse);
  });
}
