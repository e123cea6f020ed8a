import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Upstream } from '../service/dns/upstreams.ts';
import { followResolvConf } from './resolv-conf.ts';

let folder: string;
let stop: (() => void) | undefined;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'resolv-conf-'));
});
afterEach(() => {
  stop?.();
  rmSync(folder, { recursive: true });
});

const ports = (upstreams: readonly Upstream[]): string[] =>
  upstreams.map(({ address }) => address.slice(12).join('.'));

test('servers follow a file that appears, and a link that is pointed elsewhere', async () => {
  const link = join(folder, 'resolv.conf');
  const seen: string[][] = [];
  stop = followResolvConf(link, (upstreams) => seen.push(ports(upstreams)), 20);
  expect(seen).toEqual([[]]);

  writeFileSync(join(folder, 'home'), '# home\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n');
  symlinkSync(join(folder, 'home'), link);
  await vi.waitFor(() => expect(seen.at(-1)).toEqual(['192.0.2.1', '192.0.2.2']));

  writeFileSync(join(folder, 'vpn'), 'search corp.example\nnameserver 10.0.0.53\n');
  symlinkSync(join(folder, 'vpn'), join(folder, 'next'));
  renameSync(join(folder, 'next'), link);
  await vi.waitFor(() => expect(seen.at(-1)).toEqual(['10.0.0.53']));
});
