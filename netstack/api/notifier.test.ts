import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { nullLog } from '#common/log';
import { Notifier } from './notifier.ts';

let folder: string;
let path: string;
let server: Server | undefined;
let heard: Promise<string>[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'notifier-'));
  path = join(folder, 'notify.sock');
  heard = [];
});
afterEach(() => {
  server?.close();
  server = undefined;
  rmSync(folder, { recursive: true });
});

async function listen(): Promise<void> {
  server = createServer((socket) => heard.push(text(socket)));
  await new Promise<void>((resolve) => server!.listen(path, resolve));
}

test("each notification is a connection with gvproxy's line, in order", async () => {
  await listen();
  const notifier = new Notifier(path, nullLog);
  notifier.send({ notification_type: 'ready' });
  notifier.send({ notification_type: 'connection_established', mac_address: '5a:94:ef:e4:0c:ee' });
  await notifier.close();
  await expect.poll(() => heard.length).toBe(2);
  expect(await Promise.all(heard)).toEqual([
    '{"notification_type":"ready"}\n',
    '{"notification_type":"connection_established","mac_address":"5a:94:ef:e4:0c:ee"}\n',
  ]);
});

test('without a listener a notification is lost, and later ones arrive', async () => {
  const notifier = new Notifier(path, nullLog);
  notifier.send({ notification_type: 'ready' });
  await notifier.close();
  await listen();
  notifier.send({ notification_type: 'hypervisor_error' });
  await notifier.close();
  await expect.poll(() => heard.length).toBe(1);
  expect(await heard[0]).toBe('{"notification_type":"hypervisor_error"}\n');
});

test('of more than a hundred that wait, the rest is dropped', async () => {
  await listen();
  const notifier = new Notifier(path, nullLog);
  for (let i = 0; i < 150; i++) notifier.send({ notification_type: 'ready' });
  await notifier.close();
  await expect.poll(() => heard.length).toBe(101);
});
