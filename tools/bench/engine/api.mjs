// A client of the Engine API with one kept connection, as SDKs have. Streams and hijacked connections get their own.
import { Agent, request } from 'node:http';

export class Api {
  #agent = new Agent({ keepAlive: true });
  #socket;

  constructor(socket) {
    this.#socket = socket;
  }

  close() {
    this.#agent.destroy();
  }

  #open(method, path, body, agent) {
    const text =
      body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    const headers = text && {
      'Content-Type': Buffer.isBuffer(body) ? 'application/x-tar' : 'application/json',
      'Content-Length': text.length,
    };
    return new Promise((resolve, reject) => {
      const sent = request(
        { socketPath: this.#socket, method, path: `/v1.41${path}`, headers, agent },
        resolve,
      );
      sent.on('error', reject);
      sent.end(text);
    });
  }

  /** The body of an answer, as bytes. @throws its text for anything else than success */
  async bytes(method, path, body) {
    const response = await this.#open(method, path, body, this.#agent);
    const parts = [];
    for await (const part of response) parts.push(part);
    const whole = Buffer.concat(parts);
    if (response.statusCode >= 400) throw new Error(`${method} ${path}: ${response.statusCode} ${whole}`);
    return whole;
  }

  async json(method, path, body) {
    return JSON.parse((await this.bytes(method, path, body)).toString() || 'null');
  }

  /** Reads an answer to its end without keeping it. Resolves with the number of bytes. */
  async drain(method, path, body) {
    const response = await this.#open(method, path, body, false);
    let count = 0;
    for await (const part of response) count += part.length;
    if (response.statusCode >= 400) throw new Error(`${method} ${path}: ${response.statusCode}`);
    return count;
  }

  /** Events as they come; resolves when the engine has begun to send them. */
  async events(onEvent) {
    const response = await this.#open('GET', '/events', undefined, false);
    let rest = '';
    response.setEncoding('utf8');
    response.on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      for (const line of lines) onEvent(JSON.parse(line));
    });
    response.on('error', () => {});
    return { close: () => response.destroy() };
  }
}
