import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { nullLog } from '#common/log';
import type { Network } from '../index.ts';
import type { LeaseRecord } from '../service/lease-pool.ts';
import { keepLeaseFile } from './lease-file.ts';

const LEASE: LeaseRecord = { address: '10.0.0.2', mac: '02:00:00:00:00:01', expiresAtMs: 5 };

let folder: string;
let restored: LeaseRecord[];
let inForce: LeaseRecord[];
const network = {
  restoreLeases: async (records: LeaseRecord[]) => {
    restored = records;
    return records.length;
  },
  keepLeases: async () => inForce,
} as Partial<Network> as Network;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lease-file-'));
  inForce = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

test('leases come from the file and go there, whole', async () => {
  const path = join(folder, 'leases');
  const stop = await keepLeaseFile(network, path, nullLog);
  expect(restored).toEqual([]);
  inForce = [LEASE];
  await stop();
  expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual([LEASE]);
  expect(readdirSync(folder)).toEqual(['leases']);
  await (await keepLeaseFile(network, path, nullLog))();
  expect(restored).toEqual([LEASE]);
});

test.each(['{', '{}'])('a file that holds %s is refused, not overwritten', async (text) => {
  const path = join(folder, 'leases');
  writeFileSync(path, text);
  await expect(keepLeaseFile(network, path, nullLog)).rejects.toThrow(
    expect.objectContaining({ code: 'ERR_LEASE_FILE_INVALID' }),
  );
  expect(readFileSync(path, 'utf8')).toBe(text);
});

test('a folder that cannot be written to does not end the network', async () => {
  const stop = await keepLeaseFile(network, join(folder, 'no', 'leases'), nullLog);
  inForce = [LEASE];
  await stop();
  expect(readdirSync(folder)).toEqual([]);
});
