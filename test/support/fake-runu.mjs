#!/usr/bin/env node
// Plays a runtime with a kernel of its own, such as runu: takes runc's command line and runs the bundle's program as a program of
// this machine, found below the bundle's root. What it was called with goes to the file that FAKE_RUNU_LOG names.
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    version: { type: 'boolean' },
    debug: { type: 'boolean' },
    root: { type: 'string' },
    bundle: { type: 'string' },
    process: { type: 'string' },
    force: { type: 'boolean' },
  },
});
const [command, id = ''] = positionals;
if (process.env.FAKE_RUNU_LOG)
  appendFileSync(process.env.FAKE_RUNU_LOG, `${process.argv.slice(2).join(' ')}\n`);
if (values.version) console.log('runu version 0.0-fake');
const state = join(values.root ?? '/none', id);

function become({ args, env, cwd, user }, root) {
  const [program, ...rest] = args;
  const environment = Object.fromEntries(env.map((entry) => entry.split(/=(.*)/s).slice(0, 2)));
  const child = spawn(join(root, program), rest, {
    stdio: 'inherit',
    cwd: join(root, cwd),
    env: { ...environment, UID_ASKED: String(user.uid) },
  });
  child.on('error', (error) => {
    console.error(error.message);
    process.exit(127);
  });
  child.on('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}

if (command === 'run') {
  // A kernel takes its time.
  await new Promise((resolve) => setTimeout(resolve, Number(process.env.FAKE_RUNU_BOOT_MS ?? 0)));
  const config = JSON.parse(readFileSync(join(values.bundle, 'config.json'), 'utf8'));
  mkdirSync(state, { recursive: true });
  writeFileSync(join(state, 'root'), config.root.path);
  become(config.process, config.root.path);
} else if (command === 'exec') {
  become(JSON.parse(readFileSync(values.process, 'utf8')), readFileSync(join(state, 'root'), 'utf8'));
} else if (command === 'state') {
  if (!existsSync(join(state, 'root')) || readFileSync(join(state, 'root'), 'utf8') === '') process.exit(1);
  console.log(JSON.stringify({ ociVersion: '1.0.2', id, status: 'running' }));
} else if (command === 'delete' && existsSync(state)) rmSync(state, { recursive: true });
