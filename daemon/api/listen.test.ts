import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fastify from 'fastify';
import { expect, it } from 'vitest';
import { listen } from './listen.ts';

it('a socket is for its owner alone until it has its mode, whatever the umask is', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'drydock-listen-'));
  const path = join(folder, 'docker.sock');
  const before = process.umask(0);
  try {
    let isDone = false;
    const listening = listen(fastify(), { kind: 'unix', path }, { tls: undefined, groupId: undefined });
    void listening.then(() => {
      isDone = true;
    });
    const modes = new Set<number>();
    while (!isDone) {
      const mode = statSync(path, { throwIfNoEntry: false })?.mode;
      if (mode !== undefined) modes.add(mode & 0o777);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect([...modes].filter((mode) => mode !== 0o600 && mode !== 0o660)).toEqual([]);
    expect(statSync(path).mode & 0o777).toBe(0o660);
    expect(process.umask()).toBe(0);
    await (await listening).close(0);
  } finally {
    process.umask(before);
    rmSync(folder, { recursive: true });
  }
});
