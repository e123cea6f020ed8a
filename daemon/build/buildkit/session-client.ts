/** What a client gives to a build through its session: secrets, ssh agents, uploads (moby/buildkit, session/*). */
import { createServer, type Socket } from 'node:net';
import { errorMessage } from '#common/errors';
import type { StepClient } from '../run-mounts.ts';
import { BytesMessage } from './control-messages.ts';
import { GrpcError } from './grpc.ts';
import { GetSecretRequest, SshRequest } from './messages.ts';
import type { Session } from './sessions.ts';

const SECRET = '/moby.buildkit.secrets.v1.Secrets/GetSecret';
const CHECK_AGENT = '/moby.sshforward.v1.SSH/CheckAgent';
const FORWARD_AGENT = '/moby.sshforward.v1.SSH/ForwardAgent';
const PULL = '/moby.upload.v1.Upload/Pull';
/** grpc/grpc, doc/statuscodes.md: NOT_FOUND, UNIMPLEMENTED. */
const ABSENT = new Set([5, 12]);

const offers = ({ methods }: Session, path: string): boolean => methods.has(path.toLowerCase());

/** Secrets and agents of the client for RUN. */
export function sessionStepClient(session: Session): StepClient {
  return {
    async secret(id, signal) {
      if (!offers(session, SECRET)) return undefined;
      try {
        const answer = await session.client.unary(SECRET, GetSecretRequest.encode({ ID: id }), signal);
        return BytesMessage.decode(answer).data;
      } catch (error) {
        if (error instanceof GrpcError && (ABSENT.has(error.status) || /not found/.test(error.message)))
          return undefined;
        throw error;
      }
    },
    async agent(id, socketPath, signal) {
      if (!offers(session, FORWARD_AGENT)) return undefined;
      try {
        await session.client.unary(CHECK_AGENT, SshRequest.encode({ ID: id }), signal);
      } catch (error) {
        // The client says no, by any status, of an id that it does not forward.
        if (error instanceof GrpcError && !signal.aborted) return undefined;
        throw error;
      }
      return listenForAgent(session, id, socketPath, signal);
    },
  };
}

/** Every connection to the socket is a call of the client, bytes both ways. */
async function listenForAgent(
  { client }: Session,
  id: string,
  socketPath: string,
  signal: AbortSignal,
): Promise<{ close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    const forward = async (): Promise<void> => {
      const call = client.call(FORWARD_AGENT, { 'buildkit.ssh.id': id }, signal);
      socket.once('close', () => call.cancel());
      const sending = (async (): Promise<void> => {
        for await (const chunk of socket) await call.send(BytesMessage.encode({ data: chunk as Buffer }));
        call.end();
      })();
      for await (const bytes of call.messages()) socket.write(BytesMessage.decode(bytes).data);
      socket.end();
      await sending;
    };
    // The program in the step hears that its agent has gone, and says so itself.
    forward().catch((error) => socket.destroy(new Error(errorMessage(error))));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, resolve);
  });
  return {
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        server.close(() => resolve());
      }),
  };
}

/** The client's standard input, which it offers under an address of its own. @throws ERR_SESSION */
export async function* pullUpload(
  session: Session,
  url: URL,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const call = session.client.call(PULL, { urlpath: url.pathname, urlhost: url.host }, signal);
  try {
    call.end();
    for await (const bytes of call.messages()) yield BytesMessage.decode(bytes).data;
  } finally {
    call.cancel();
  }
}
