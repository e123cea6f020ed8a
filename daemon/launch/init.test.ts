import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { initProgram } from './init.ts';

it('is a program that this machine runs, and that only waits', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'drydock-init-'));
  const path = join(folder, 'init');
  writeFileSync(path, initProgram(process.arch === 'arm64' ? 'arm64' : 'x64'));
  chmodSync(path, 0o700);
  try {
    const child = spawn(path);
    const exited = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
    await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
    child.kill('SIGCONT');
    child.kill('SIGTERM');
    // Had it crashed, the signal would be another.
    expect(await exited).toBe('SIGTERM');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

it('is a well-formed file for both machines', () => {
  for (const machine of ['x64', 'arm64'] as const) {
    const file = Buffer.from(initProgram(machine));
    expect(file.toString('latin1', 0, 4)).toBe('\x7fELF');
    expect(file.readUInt16LE(18)).toBe(machine === 'x64' ? 62 : 183);
    expect(Number(file.readBigUInt64LE(64 + 32))).toBe(file.length);
  }
});
