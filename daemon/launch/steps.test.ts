/**
 * The launch of a container against a double of the system: which calls are made, in which order, and what is told when
 * any one of them fails.
 */
import { mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SyscallError } from '#common/errors';
import { DEFAULT_CAPABILITIES } from '../runtime/defaults.ts';
import type { JailSpec } from '../runtime/runtime.ts';
import { LaunchFailure } from './failure.ts';
import { becomeProgram } from './program.ts';
import { enter } from './steps.ts';
import { linuxSystem, type System } from './system.ts';

const EPERM = 1;
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'drydock-steps-'));
  mkdirSync(join(folder, 'source'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Calls that answer with a descriptor; the double gives one of a folder. */
const OPENS = new Set(['cloneTree', 'newFilesystem', 'openResolved', 'createRuleset', 'openExecLabel']);
/** Calls that only ask. */
const ANSWERS: Record<string, unknown> = { boundingHas: true, landlockVersion: 7 };

interface Recording {
  system: System;
  calls: string[];
}

/** A system that records every call, and fails the one with the number `failing`. */
function record(failing = -1): Recording {
  const calls: string[] = [];
  const system = new Proxy(linuxSystem, {
    get(target, name: string) {
      const real = target[name as keyof System];
      if (typeof real !== 'function') return real;
      if (name in ANSWERS) return () => ANSWERS[name];
      return (...args: unknown[]) => {
        calls.push(`${name} ${args.map(describeArgument).join(' ')}`.trim());
        if (calls.length - 1 === failing) throw new SyscallError(name, 'EPERM', EPERM);
        return OPENS.has(name) ? openSync(folder, 'r') : undefined;
      };
    },
  });
  return { system, calls };
}

function describeArgument(value: unknown): string {
  // Descriptors and masks differ from run to run and from kernel to kernel; names do not.
  return typeof value === 'string' ? value.replace(folder, 'FOLDER') : '';
}

function spec(): JailSpec {
  return {
    id: 'a'.repeat(64),
    rootPath: folder,
    readOnlyRoot: true,
    hostname: 'box',
    domainname: 'example',
    namespaces: { network: 'private', pid: 'private', ipc: 'private', uts: 'private', cgroup: 'private' },
    mounts: [
      { kind: 'proc', target: '/proc', readOnly: false, options: [] },
      { kind: 'bind', source: join(folder, 'source'), target: '/data', readOnly: true, options: [] },
    ],
    devices: [],
    privileged: false,
    maskedPaths: ['/proc/keys'],
    readonlyPaths: ['/proc/sys'],
    sysctls: {},
    limits: {},
    network: { attached: true, ports: [] },
    init: false,
    process: {
      args: [process.execPath],
      env: [],
      cwd: '/',
      makeCwd: false,
      user: '',
      groups: [],
      terminal: false,
      stdin: true,
      capabilities: [...DEFAULT_CAPABILITIES],
      noNewPrivileges: true,
      rlimits: [{ name: 'nofile', soft: 10, hard: 10 }],
    },
  };
}

const filter = Buffer.alloc(8).toString('base64');

/** What a kernel with every security module does with a jail. */
const walled = {
  labels: { apparmor: 'profile', selinux: 'a:b:c:d' },
  landlock: { paths: [{ path: '/', write: true, execute: true }], nodes: true, tcp: true, outside: true },
};

/** All that happens before execve. */
function launch(system: System, unshared: () => void = () => {}): void {
  const jail = spec();
  const message = { type: 'prepare' as const, spec: jail, cgroups: [], filter, ...walled };
  becomeProgram(system, jail.process, enter(system, message, unshared), message);
}

/** The same in a jail without namespaces. */
function launchConfined(system: System, first: boolean): void {
  const jail = spec();
  // Who runs the tests may give its own standard streams to itself.
  const owner = statSync(folder).uid;
  const rules = [
    { path: '/', write: false, execute: true },
    { path: '/no-such', write: true, execute: false },
  ];
  const landlock = { paths: rules, nodes: false, tcp: false, outside: false };
  const confinement = { spec: jail, first, owner, landlock };
  const entered = enter(system, { type: 'confine', process: jail.process, filter, confinement }, () => {});
  becomeProgram(system, jail.process, entered, { filter, confinement });
}

/** Fails each call of a launch in turn, and gives the names of the steps that failed. */
function stepsThatFail(launch: (system: System) => void): string[] {
  const { system, calls } = record();
  launch(system);
  const steps = new Set<string>();
  for (let failing = 0; failing < calls.length; failing++) {
    const { system, calls: made } = record(failing);
    let failure: unknown;
    try {
      launch(system);
    } catch (error) {
      failure = error;
    }
    expect(made).toEqual(calls.slice(0, failing + 1));
    expect(failure, calls[failing]).toBeInstanceOf(LaunchFailure);
    expect(failure).toMatchObject({ kind: 'step', code: 'EPERM' });
    steps.add((failure as LaunchFailure).step.replace(folder, 'FOLDER'));
  }
  return [...steps];
}

const openDescriptors = (): number => readdirSync('/proc/self/fd').length;

describe.skipIf(process.platform !== 'linux')('a launch', () => {
  it('makes its steps in the one order that is safe', () => {
    const { system, calls } = record();
    let seen: string[] = [];
    launch(system, () => {
      seen = [...calls];
    });
    // The network can be attached when there is a namespace and nothing of the image was touched.
    expect(seen).toEqual([
      `newSessionKeyring _ses.${'a'.repeat(64)}`,
      'openExecLabel apparmor',
      'openExecLabel selinux',
      'cloneTree  FOLDER/source',
      'cloneTree  FOLDER',
      'unshare',
      'loopbackUp',
    ]);
    expect(calls.slice(seen.length)).toMatchInlineSnapshot(`
      [
        "setHostname box",
        "setDomainname example",
        "setMountAttributes",
        "setMountAttributes",
        "attachMount",
        "newFilesystem proc",
        "openResolved  /proc",
        "openResolved  /proc",
        "attachMount",
        "setMountAttributes",
        "setMountAttributes",
        "openResolved  /data",
        "attachMount",
        "openResolved  /proc/keys",
        "newFilesystem tmpfs",
        "attachMount",
        "openResolved  /proc/sys",
        "cloneTree",
        "setMountAttributes",
        "attachMount",
        "setMountAttributes",
        "changeFolder FOLDER",
        "pivotRootHere",
        "detachMount .",
        "changeFolder /",
        "clearCloseOnExec",
        "clearCloseOnExec",
        "clearCloseOnExec",
        "createRuleset",
        "allowPath",
        "limitBoundingSet",
        "keepCapabilities",
        "setIdentity",
        "keepCapabilities",
        "setResourceLimit",
        "resetSignals",
        "setNoNewPrivileges",
        "setExecLabel  apparmor profile",
        "setExecLabel  selinux a:b:c:d",
        "setCapabilities",
        "restrictSelf",
        "installSeccompFilter",
      ]
    `);
  });

  it('names the step and the errno, whichever call fails, and makes no further call', () => {
    expect(stepsThatFail(launch)).toMatchInlineSnapshot(`
      [
        "make a session keyring",
        "ask for the label of apparmor",
        "ask for the label of selinux",
        "open FOLDER/source to mount it on /data",
        "open the root",
        "make namespaces",
        "bring up the loopback interface",
        "set the host name",
        "set the domain name",
        "isolate mounts",
        "mount the root",
        "mount proc on /proc",
        "mount bind on /data",
        "mask paths",
        "make paths read-only",
        "make the root read-only",
        "enter the root",
        "attach the standard streams",
        "make rules for files",
        "limit capabilities",
        "become the user",
        "set resource limits",
        "reset signals",
        "forbid new privileges",
        "label the program for apparmor",
        "label the program for selinux",
        "drop capabilities",
        "confine by rules for files",
        "filter system calls",
      ]
    `);
  });

  it('keeps no descriptor of its own after a success', () => {
    const before = openDescriptors();
    launch(record().system);
    expect(openDescriptors()).toBe(before);
  });
});

describe.skipIf(process.platform !== 'linux')('a launch without namespaces', () => {
  it('builds the root, goes in, and gives up all power before the program starts', () => {
    const { system, calls } = record();
    launchConfined(system, true);
    expect(calls).toMatchInlineSnapshot(`
      [
        "newSessionKeyring _ses.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "claimTree FOLDER",
        "cloneTree  FOLDER/source",
        "newFilesystem proc",
        "openResolved  /proc",
        "openResolved  /proc",
        "attachMount",
        "setMountAttributes",
        "setMountAttributes",
        "openResolved  /data",
        "attachMount",
        "openResolved  /proc/keys",
        "newFilesystem tmpfs",
        "attachMount",
        "openResolved  /proc/sys",
        "cloneTree",
        "setMountAttributes",
        "attachMount",
        "setMountAttributes",
        "changeRoot FOLDER",
        "changeFolder /",
        "clearCloseOnExec",
        "clearCloseOnExec",
        "clearCloseOnExec",
        "createRuleset",
        "allowPath",
        "limitBoundingSet",
        "keepCapabilities",
        "setIdentity",
        "keepCapabilities",
        "setResourceLimit",
        "resetSignals",
        "setNoNewPrivileges",
        "setCapabilities",
        "restrictSelf",
        "installSeccompFilter",
      ]
    `);
  });

  it('of a further process only goes in, under the same walls', () => {
    const { system, calls } = record();
    launchConfined(system, false);
    expect(calls.slice(0, 5)).toMatchInlineSnapshot(`
      [
        "newSessionKeyring _ses.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "changeRoot FOLDER",
        "changeFolder /",
        "clearCloseOnExec",
        "clearCloseOnExec",
      ]
    `);
    expect(calls.slice(-10)).toMatchInlineSnapshot(`
      [
        "limitBoundingSet",
        "keepCapabilities",
        "setIdentity",
        "keepCapabilities",
        "setResourceLimit",
        "resetSignals",
        "setNoNewPrivileges",
        "setCapabilities",
        "restrictSelf",
        "installSeccompFilter",
      ]
    `);
  });

  it('names the step and the errno, whichever call fails, and makes no further call', () => {
    expect(stepsThatFail((system) => launchConfined(system, true))).toMatchInlineSnapshot(`
      [
        "make a session keyring",
        "give the root to its user",
        "open FOLDER/source to mount it on /data",
        "mount proc on /proc",
        "mount bind on /data",
        "mask paths",
        "make paths read-only",
        "make the root read-only",
        "enter the root",
        "attach the standard streams",
        "make rules for files",
        "limit capabilities",
        "become the user",
        "set resource limits",
        "reset signals",
        "forbid new privileges",
        "drop capabilities",
        "confine by rules for files",
        "filter system calls",
      ]
    `);
  });

  it('forbids new privileges even where the kernel has no Landlock', () => {
    const { system, calls } = record();
    const old = new Proxy(system, {
      get: (target, name: keyof System) => (name === 'landlockVersion' ? () => 0 : target[name]),
    });
    launchConfined(old, false);
    expect(calls).toContain('setNoNewPrivileges');
    expect(calls.join()).not.toMatch(/Ruleset|restrictSelf/);
  });
});
