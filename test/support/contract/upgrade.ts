/** Calls that take their connection over: judged by the head of the answer, then ended. */
import { request } from 'node:http';
import { WebSocket } from 'ws';
import type { CallOptions, ContractClient } from './client.ts';

/** Upgrades to docker's raw stream, waits for its first byte, and hangs up. */
export async function hijackCall(
  api: ContractClient,
  operation: string,
  options: CallOptions,
): Promise<void> {
  const { method, url } = api.target(operation, options);
  const text = options.body === undefined ? '' : JSON.stringify(options.body);
  await new Promise<void>((resolve, reject) => {
    const outgoing = request({
      socketPath: api.socketPath,
      method,
      path: url,
      headers: {
        Connection: 'Upgrade',
        Upgrade: 'tcp',
        'Content-Type': 'application/json',
        'Content-Length': text.length,
      },
    });
    outgoing.on('upgrade', (response, socket) => {
      api.record(operation, {
        status: response.statusCode!,
        headers: response.headers,
        body: Buffer.alloc(0),
      });
      const type = String(response.headers['content-type']);
      if (!/^application\/vnd\.docker\.(raw|multiplexed)-stream$/.test(type))
        api.faults.push(`${operation} 101 content-type: ${type}`);
      socket.destroy();
      resolve();
    });
    outgoing.on('response', (response) => reject(new Error(`${operation}: status ${response.statusCode}`)));
    outgoing.on('error', reject);
    outgoing.end(text);
  });
}

/** Opens a WebSocket and closes it. */
export async function websocketCall(
  api: ContractClient,
  operation: string,
  options: CallOptions,
): Promise<void> {
  const { url } = api.target(operation, options);
  await new Promise<void>((resolve, reject) => {
    const client = new WebSocket(`ws+unix://${api.socketPath}:${url}`);
    client.on(
      'upgrade',
      ({ statusCode, headers }) =>
        void api.record(operation, { status: statusCode!, headers, body: Buffer.alloc(0) }),
    );
    client.on('open', () => client.close());
    client.on('close', () => resolve());
    client.on('error', reject);
  });
}
