/** Serving HTTP on a TCP address beside the API: metrics, and the web page. */
import type { Server } from 'node:http';
import { DrydockError, errorMessage } from '#common/errors';

/** A server that listens. */
export interface PlainServer {
  /** `http://address:port` */
  readonly url: string;
  /** The real one, where 0 was asked for. */
  readonly port: number;
  /** Ends it, with the connections that it has. */
  close(): Promise<void>;
}

/** Listens. @param failure what could not be done if it can't, as "can't serve metrics on 127.0.0.1:9323" @throws ERR_LISTEN */
export async function listenPlain(
  server: Server,
  { host, port }: { host: string; port: number },
  failure: string,
): Promise<PlainServer> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) =>
      reject(new DrydockError('ERR_LISTEN', `${failure}: ${errorMessage(error)}`)),
    );
    server.listen(port, host, resolve);
  });
  const bound = server.address() as { port: number };
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound.port}`,
    port: bound.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
