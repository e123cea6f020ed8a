/**
 * What a jail without namespaces may do on the real kernel, beside what the profile for Darwin says of the same
 * specification: one policy, two compilers, the same answers.
 */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hostPath, type RootMode, seatbeltProfile } from '../../daemon/runtime/darwin/profile.ts';
import type { JailMount, JailSpec } from '../../daemon/runtime/runtime.ts';
import { jailPolicy } from '../../daemon/runtime/spec/policy.ts';
import { type Attempt, decide, readProfile } from '../support/seatbelt.ts';
import { finish, Jails, type SpecChanges } from './jails.ts';

/** Another run of the property: SEED=n. */
const SEED = Number(process.env.SEED ?? 20261124);
const SPECS = 5;
const MODES: RootMode[] = ['chroot', 'confine'];

const jails = new Jails();
/** All folders of names `a` and `b`, three deep, below `/p`; each holds a program `f`. */
const FOLDERS = ['', '/a', '/b'].flatMap((one) =>
  ['', '/a', '/b'].flatMap((two) => ['', '/a', '/b'].map((three) => `${one}${two}${three}`)),
);
const FILES = [...new Set(FOLDERS)].map((folder) => `/p${folder}/f`);

function plant(base: string): void {
  for (const folder of new Set(FOLDERS)) {
    mkdirSync(`${base}${folder}`, { recursive: true });
    chmodSync(`${base}${folder}`, 0o777);
    writeFileSync(`${base}${folder}/f`, '#!/bin/sh\nexit 0\n');
    chmodSync(`${base}${folder}/f`, 0o777);
  }
}

let source: string;
beforeAll(async () => {
  source = jails.folder('source');
  plant(`${jails.image}/p`);
  plant(source);
  // The jail's user must be able to walk there.
  chmodSync(dirname(source), 0o755);
  await jails.open();
});
afterAll(() => jails.close());

/** Tries everything for real and prints what succeeded. */
const SCRIPT = `
import ctypes, json, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def tried(action):
    try:
        return action() is not False
    except OSError:
        return False
def opened(path, flags):
    os.close(os.open(path, flags))
plan = json.loads(sys.argv[1])
result = {
    'files': [{
        'read': tried(lambda: opened(path, os.O_RDONLY)),
        'write': tried(lambda: opened(path, os.O_WRONLY)),
        'execute': tried(lambda: subprocess.run([path], check=False).returncode == 0),
    } for path in plan['files']],
    'connect': tried(lambda: socket.create_connection(('127.0.0.1', plan['port']), 2).close()),
    'ipc': libc.shmget(0, 4096, 0o1600) >= 0,
    'mount': tried(lambda: libc.mount(b'none', b'/p', b'tmpfs', 0, None) == 0),
    'mknod': tried(lambda: os.mknod('/tmp/node', 0o20666, os.makedev(1, 5))),
    'chroot': tried(lambda: os.chroot('/p')),
}
print(json.dumps(result))
`;

interface Outcome {
  files: { read: boolean; write: boolean; execute: boolean }[];
  connect: boolean;
  ipc: boolean;
  mount: boolean;
  mknod: boolean;
  chroot: boolean;
}

/** The same by the profile. */
function byProfile(spec: JailSpec, mode: RootMode): Outcome {
  const { text, parameters } = seatbeltProfile(jailPolicy(spec), { mode, rootPath: '/var/root-of-it' });
  const profile = readProfile(text, parameters);
  const may = (operation: string, more: Partial<Attempt> = {}): boolean =>
    decide(profile, { operation, ...more });
  return {
    files: FILES.map((file) => {
      const path = hostPath('/var/root-of-it', file);
      return {
        read: may('file-read-data', { path }),
        write: may('file-write-data', { path }),
        // A script is run by reading it.
        execute: may('process-exec*', { path }) && may('file-read-data', { path }),
      };
    }),
    connect: may('network-outbound', { address: '127.0.0.1:1' }),
    ipc: may('ipc-sysv-shm'),
    mount: may('file-mount', { path: hostPath('/var/root-of-it', '/p') }),
    mknod: may('file-mknod', { path: hostPath('/var/root-of-it', '/tmp/node') }),
    chroot: may('file-chroot', { path: hostPath('/var/root-of-it', '/p') }),
  };
}

const folder = fc.constantFrom(...new Set(FOLDERS)).map((name) => `/p${name}`);
const wishes = fc.record({
  readOnlyRoot: fc.boolean(),
  mounts: fc.array(fc.record({ target: folder, readOnly: fc.boolean(), noexec: fc.boolean() }), {
    maxLength: 4,
  }),
  maskedPaths: fc.array(folder, { maxLength: 2 }),
  readonlyPaths: fc.array(folder, { maxLength: 2 }),
  hostIpc: fc.boolean(),
});

describe('a specification, run without namespaces and compiled for Darwin', () => {
  it.each(fc.sample(wishes, { seed: SEED, numRuns: SPECS }))('gives the same (%#)', async (wish) => {
    const mounts = wish.mounts.map(
      ({ target, readOnly, noexec }): JailMount => ({
        kind: 'bind',
        source,
        target,
        readOnly,
        options: noexec ? ['noexec'] : [],
      }),
    );
    mounts.push({ kind: 'tmpfs', target: '/tmp', readOnly: false, options: ['mode=1777'] });
    const { hostIpc, ...rest } = wish;
    const own = jails.spec([]).namespaces;
    const changes: SpecChanges = {
      ...rest,
      mounts,
      runtime: 'plain',
      network: { attached: false, ports: [] },
      namespaces: { ...own, ipc: hostIpc ? 'host' : 'private' },
    };
    const plan = JSON.stringify({ files: FILES, port: 1 });
    const spec = jails.spec(['python3', '-c', SCRIPT, plan], changes);
    const jail = await jails.runtime.create(spec);
    const real = await jail
      .start()
      .then(finish)
      .finally(() => jail.destroy());
    expect(real.stderr).toBe('');
    for (const mode of MODES) expect(byProfile(spec, mode), `SEED=${SEED}`).toEqual(JSON.parse(real.stdout));
  });
});
