/**
 * Preloaded into a daemon (`node --import`): makes every change that it makes to a file system a fault point, at which it can be
 * killed. So the points need no code in the product, and none can be forgotten.
 *
 * DRYDOCK_FAULT_FOLDER holds `plan` while the daemon is armed: the number of changes after which it is killed with SIGKILL, 0 for
 * never; and `trace`, to which each change is added as a line.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { isMainThread } from 'node:worker_threads';

const require = createRequire(import.meta.url);
const fs = require('node:fs');
const childProcess = require('node:child_process');
const folder = process.env.DRYDOCK_FAULT_FOLDER;
const { appendFileSync, readFileSync } = fs;

// Children (launchers, helpers) have other numbers: only the daemon itself and its threads are counted.
if (isMainThread && !process.env.DRYDOCK_FAULT_PROCESS)
  process.env.DRYDOCK_FAULT_PROCESS = String(process.pid);

/** Set while a change is counted: counting writes too. */
let isCounting = false;

/** Before a change: counts it, and ends the process when its number has come. */
function change(what, path) {
  if (isCounting) return;
  isCounting = true;
  try {
    count(what, path);
  } finally {
    isCounting = false;
  }
}

function count(what, path) {
  let plan;
  try {
    plan = Number(readFileSync(`${folder}/plan`, 'utf8'));
  } catch {
    return;
  }
  appendFileSync(`${folder}/trace`, `${what} ${String(path)}\n`);
  if (plan === 0) return;
  const made = readFileSync(`${folder}/trace`, 'latin1').split('\n').length - 1;
  if (made < plan) return;
  process.kill(process.pid, 'SIGKILL');
  // A thread goes on for a moment otherwise.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

const NAMES = [
  ...[
    'appendFile',
    'chmod',
    'chown',
    'copyFile',
    'lchown',
    'link',
    'lutimes',
    'mkdir',
    'mkdtemp',
    'rename',
    'rm',
  ],
  ...['rmdir', 'symlink', 'truncate', 'unlink', 'utimes', 'writeFile'],
];

/** `open` changes something only when it may create or truncate. */
const opensForWriting = (flags) =>
  typeof flags === 'number'
    ? (flags & (fs.constants.O_CREAT | fs.constants.O_TRUNC)) !== 0
    : /[wax]/.test(flags ?? 'r');

function wrap(object, name, label) {
  const original = object[name];
  if (typeof original !== 'function') return;
  object[name] = function (...args) {
    if (!label.startsWith('open') || opensForWriting(args[1])) change(label, args[0]);
    return original.apply(this, args);
  };
}

if (folder && process.env.DRYDOCK_FAULT_PROCESS === String(process.pid)) {
  for (const name of [...NAMES, 'open']) {
    wrap(fs.promises, name, name);
    wrap(fs, `${name}Sync`, name);
  }
  wrap(fs, 'createWriteStream', 'createWriteStream');
  wrap(childProcess, 'spawn', 'spawn');
  wrap(childProcess, 'fork', 'fork');
  syncBuiltinESMExports();
}
