/** Debian's docker-registry on loopback, with a configuration of its own; and a registry that misbehaves on purpose. */
import { execFileSync, spawn } from 'node:child_process';
import { createHash, createPrivateKey, randomUUID, sign, X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';

/** A registry that runs. */
export interface TestRegistry {
  /** `127.0.0.1:PORT` */
  domain: string;
  /** Where it keeps its blobs. */
  folder: string;
  /** A folder as certs.d, with the certificate that it is trusted by. */
  certsDir: string;
  close(): Promise<void>;
}

export interface RegistryWishes {
  tls?: boolean;
  auth?: 'basic' | 'token';
}

/** htpasswd line of `user` with the password `secret`. */
const HTPASSWD = 'user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n';

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Resolves when something listens. */
async function listening(port: number, failed: () => string | undefined): Promise<void> {
  for (;;) {
    const reason = failed();
    if (reason !== undefined) throw new Error(`docker-registry ended: ${reason}`);
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => socket.end(() => resolve(true)));
      socket.on('error', () => resolve(false));
    });
    if (isUp) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function certificate(folder: string): void {
  const args = `req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout ${folder}/key.pem -out ${folder}/cert.pem`;
  execFileSync('openssl', args.split(' '), { stdio: 'ignore' });
}

export async function startRegistry({ tls = false, auth }: RegistryWishes = {}): Promise<TestRegistry> {
  const folder = mkdtempSync(`${tmpdir()}/drydock-registry-`);
  const port = await freePort();
  const domain = `127.0.0.1:${port}`;
  certificate(folder);
  mkdirSync(`${folder}/certs.d/${domain}`, { recursive: true });
  if (tls) writeFileSync(`${folder}/certs.d/${domain}/ca.crt`, readFileSync(`${folder}/cert.pem`));
  writeFileSync(`${folder}/htpasswd`, HTPASSWD);
  const tokens = auth === 'token' ? await startTokens(folder, domain) : undefined;
  const http: Record<string, unknown> = { addr: domain };
  if (tls) http.tls = { certificate: `${folder}/cert.pem`, key: `${folder}/key.pem` };
  const config: Record<string, unknown> = {
    version: '0.1',
    log: { level: 'error', accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: `${folder}/data` }, delete: { enabled: true } },
    http,
  };
  if (auth === 'basic') config.auth = { htpasswd: { realm: 'test', path: `${folder}/htpasswd` } };
  if (tokens)
    config.auth = {
      token: {
        realm: tokens.realm,
        service: domain,
        issuer: 'drydock-test',
        rootcertbundle: `${folder}/cert.pem`,
      },
    };
  // JSON is YAML.
  writeFileSync(`${folder}/config.yml`, JSON.stringify(config));
  const child = spawn('docker-registry', ['serve', `${folder}/config.yml`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += String(chunk);
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  await listening(port, () => (child.exitCode === null ? undefined : said));
  return {
    domain,
    folder,
    certsDir: `${folder}/certs.d`,
    async close() {
      child.kill('SIGKILL');
      await ended;
      tokens?.server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A token service as distribution's specification has it: basic credentials in, a signed JWT for the scope out. */
async function startTokens(folder: string, audience: string): Promise<{ server: Server; realm: string }> {
  const key = createPrivateKey(readFileSync(`${folder}/key.pem`));
  const chain = new X509Certificate(readFileSync(`${folder}/cert.pem`)).raw.toString('base64');
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const server = createServer((request, response) => {
    const expected = `Basic ${Buffer.from('user:secret').toString('base64')}`;
    if (request.headers.authorization !== undefined && request.headers.authorization !== expected) {
      response.writeHead(401).end();
      return;
    }
    const isUser = request.headers.authorization === expected;
    const scopes = new URL(request.url!, 'http://x').searchParams.getAll('scope');
    const access = scopes.map((scope) => {
      const [type, name, actions] = scope.split(':');
      return { type, name, actions: isUser ? actions!.split(',') : [] };
    });
    const seconds = Math.floor(Date.now() / 1000);
    const claims = {
      iss: 'drydock-test',
      sub: 'user',
      aud: audience,
      exp: seconds + 300,
      nbf: seconds - 60,
      iat: seconds,
      jti: randomUUID(),
      access,
    };
    const text = `${part({ typ: 'JWT', alg: 'RS256', x5c: [chain] })}.${part(claims)}`;
    const token = `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
    response.setHeader('Content-Type', 'application/json').end(JSON.stringify({ token, expires_in: 300 }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, realm: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token` };
}

/** A registry of a few documents, with whatever behaviour a test wants. */
export async function fakeRegistry(
  listener: RequestListener,
): Promise<{ domain: string; close(): Promise<void> }> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    domain: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

export function sha256(bytes: string | Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
