/** Serves a git repository on loopback, by git's own CGI program and as plain files. */
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface GitServer {
  /** `http://127.0.0.1:PORT`; the repository is `/smart/r.git` and `/plain/r.git` below it. */
  url: string;
  close(): void;
}

/** Makes a repository by a script, whose folder is its work tree, and serves it. */
export async function serveGit(script: string): Promise<GitServer> {
  const folder = mkdtempSync(join(tmpdir(), 'drydock-git-'));
  const identity = { GIT_CONFIG_NOSYSTEM: '1', HOME: folder, EMAIL: 'a@b.c' };
  const git = `git init -q -b main work && cd work && git config user.name x && ${script} && cd .. &&
    git clone -q --bare work r.git && git -C r.git update-server-info`;
  execFileSync('sh', ['-ec', git], { cwd: folder, env: { ...process.env, ...identity } });
  const server = createServer((request, response) => {
    const [, kind, path] = /^\/(smart|plain)(\/.*)$/.exec(request.url ?? '') ?? [];
    if (kind === 'smart') runProgram(folder, path!, request, response);
    else
      try {
        response.end(readFileSync(join(folder, new URL(path ?? '/', 'http://x').pathname)));
      } catch {
        response.writeHead(404).end();
      }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
      rmSync(folder, { recursive: true });
    },
  };
}

/** git-http-backend(1), as RFC 3875 has it. */
function runProgram(folder: string, path: string, request: IncomingMessage, response: ServerResponse): void {
  const { pathname, search } = new URL(path, 'http://x');
  const { headers } = request;
  const child = spawn('git', ['http-backend'], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: {
      ...process.env,
      GIT_PROJECT_ROOT: folder,
      GIT_HTTP_EXPORT_ALL: '1',
      PATH_INFO: pathname,
      QUERY_STRING: search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: headers['content-type'] ?? '',
      HTTP_CONTENT_ENCODING: headers['content-encoding'] ?? '',
      GIT_PROTOCOL: String(headers['git-protocol'] ?? ''),
    },
  });
  request.pipe(child.stdin);
  let head = Buffer.alloc(0);
  const onHead = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end < 0) return;
    child.stdout.off('data', onHead);
    for (const line of head.subarray(0, end).toString().split('\r\n')) {
      const [name = '', value = ''] = line.split(/: (.*)/s);
      if (name === 'Status') response.statusCode = Number.parseInt(value, 10);
      else response.setHeader(name, value);
    }
    response.write(head.subarray(end + 4));
    child.stdout.pipe(response);
  };
  child.stdout.on('data', onHead);
}
