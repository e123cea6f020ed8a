/** Seatbelt profiles, read back and decided by: the same as the policy says, whichever rule takes precedence. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type ExampleChanges, exampleSpec } from '../../../test/support/jail-spec.ts';
import { type Attempt, decide, type Profile, readProfile } from '../../../test/support/seatbelt.ts';
import type { JailMount, JailSpec } from '../runtime.ts';
import { jailPolicy, ruleFor } from '../spec/policy.ts';
import { hostPath, type Place, type RootMode, seatbeltProfile } from './profile.ts';

const ROOT = '/private/var/drydock/roots/c';
const MODES: RootMode[] = ['chroot', 'confine'];

const PROXY = 41_000;
const LISTENING = 8080;
const NAMES = '/private/var/run/drydock/names/c';

const quiet = { network: { attached: false, ports: [] } };
function profileOf(spec: JailSpec, mode: RootMode, more: Partial<Place> = {}): Profile {
  const { text, parameters } = seatbeltProfile(jailPolicy(spec), { mode, rootPath: ROOT, ...more });
  return readProfile(text, parameters);
}
const made = (changes: ExampleChanges, mode: RootMode, more?: Partial<Place>): Profile =>
  profileOf(exampleSpec({ ...quiet, ...changes }), mode, more);

/** How a path of the image may be seen. */
const spellings = (mode: RootMode, path: string): string[] =>
  mode === 'chroot' ? [path, hostPath(ROOT, path)] : [hostPath(ROOT, path)];

const FILE_OPERATIONS = {
  read: ['file-read-data', 'file-read-metadata', 'file-test-existence'],
  write: ['file-write-data', 'file-write-create', 'file-write-unlink', 'file-write-mode', 'file-link'],
  execute: ['process-exec*', 'file-map-executable'],
} as const;

const segment = fc.constantFrom('a', 'b', 'ab', 'etc');
const path = fc.array(segment, { maxLength: 4 }).map((parts) => `/${parts.join('/')}`);
const below = fc.array(segment, { minLength: 1, maxLength: 3 }).map((parts) => `/${parts.join('/')}`);
const mount = fc.record({
  kind: fc.constantFrom<JailMount['kind']>('bind', 'tmpfs'),
  source: fc.constant('/source'),
  target: below,
  readOnly: fc.boolean(),
  options: fc.constantFrom<string[]>([], ['noexec'], ['ro']),
});
const anySpec = fc
  .record({
    readOnlyRoot: fc.boolean(),
    mounts: fc.array(mount, { maxLength: 5 }),
    maskedPaths: fc.array(below, { maxLength: 3 }),
    readonlyPaths: fc.array(below, { maxLength: 3 }),
  })
  .map((changes) => exampleSpec({ ...quiet, ...changes }));

describe('a profile and its policy', () => {
  it.each(MODES)('decide the same about every file, by every model of precedence (%s)', (mode) => {
    fc.assert(
      fc.property(anySpec, fc.array(path, { minLength: 5, maxLength: 20 }), (spec, paths) => {
        const profile = profileOf(spec, mode);
        const { files } = jailPolicy(spec);
        for (const name of paths) {
          const rule = ruleFor(files, name);
          const expected = {
            read: rule.access !== 'none',
            write: rule.access === 'write',
            execute: rule.execute && rule.access !== 'none',
          };
          for (const seen of spellings(mode, name))
            for (const [what, operations] of Object.entries(FILE_OPERATIONS))
              for (const operation of operations)
                expect(decide(profile, { operation, path: seen }), `${operation} ${seen}`).toBe(
                  expected[what as keyof typeof expected],
                );
        }
      }),
    );
  });

  const world = fc.record({
    host: fc.boolean(),
    ipcHost: fc.boolean(),
    pidHost: fc.boolean(),
    terminal: fc.boolean(),
    proxied: fc.boolean(),
    port: fc.oneof(fc.constantFrom(PROXY, LISTENING), fc.integer({ min: 1, max: 65535 })),
    to: fc.constantFrom('127.0.0.1', '::1', '192.0.2.1'),
  });
  it.each(MODES)('decide the same about network, IPC, signals and terminals (%s)', (mode) => {
    fc.assert(
      fc.property(world, ({ host, proxied, ipcHost, pidHost, terminal, port, to }) => {
        const own = exampleSpec(quiet).namespaces;
        const ports = [{ port: LISTENING, protocol: 'tcp' as const }];
        const profile = made(
          {
            network: { attached: proxied, ports },
            namespaces: {
              ...own,
              network: host ? 'host' : 'private',
              ipc: ipcHost ? 'host' : 'private',
              pid: pidHost ? 'host' : 'private',
            },
            process: { terminal },
          },
          mode,
          proxied && !host ? { proxyPort: PROXY, namesPath: NAMES } : {},
        );
        const allowed = (attempt: Attempt): boolean => decide(profile, attempt);
        const address = `${to}:${port}`;
        for (const operation of ['network-outbound', 'network-bind', 'network-inbound']) {
          const own = port === LISTENING || (operation === 'network-outbound' && port === PROXY);
          const near = operation !== 'network-outbound' || to !== '192.0.2.1';
          expect(allowed({ operation, address })).toBe(host || (proxied && own && near));
          expect(allowed({ operation, path: hostPath(ROOT, '/tmp/socket') })).toBe(true);
          expect(allowed({ operation, path: '/private/var/run/mDNSResponder' })).toBe(mode === 'chroot');
        }
        const asks = allowed({ operation: 'network-outbound', path: NAMES });
        expect(asks).toBe(mode === 'chroot' || (proxied && !host));
        expect(allowed({ operation: 'system-socket', name: 'AF_UNIX' })).toBe(true);
        expect(allowed({ operation: 'system-socket', name: 'AF_INET6' })).toBe(host || proxied);
        expect(allowed({ operation: 'system-socket', name: 'AF_SYSTEM' })).toBe(false);
        for (const operation of ['ipc-posix-sem-open', 'ipc-posix-shm-read-data', 'ipc-sysv-shm'])
          expect(allowed({ operation })).toBe(ipcHost);
        for (const operation of ['signal', 'process-info-pidinfo']) {
          expect(allowed({ operation, target: 'others' })).toBe(pidHost);
          expect(allowed({ operation, target: 'same-sandbox' })).toBe(true);
        }
        expect(allowed({ operation: 'pseudo-tty' })).toBe(terminal);
      }),
    );
  });
});

describe('a profile', () => {
  it.each(MODES)('never allows what no jail may do (%s)', (mode) => {
    const namespaces = { ...exampleSpec({}).namespaces, network: 'host', ipc: 'host', pid: 'host' } as const;
    const profile = made({ namespaces, process: { terminal: true } }, mode);
    const never = [
      ...['file-mount', 'file-unmount', 'file-mount-update', 'file-mknod', 'file-chroot', 'file-revoke'],
      ...['file-write-setugid', 'fs-snapshot*', 'iokit-open*', 'job-creation', 'lsopen', 'appleevent-send'],
      ...['mach-register', 'nvram*', 'sysctl-write', 'system-privilege', 'system-kext-load', 'system-reboot'],
    ];
    for (const operation of never)
      for (const path of ['/', '/bin/sh', ROOT, `${ROOT}/x`])
        expect(decide(profile, { operation, path }), `${operation} ${path}`).toBe(false);
    expect(decide(profile, { operation: 'mach-priv-task-port', target: 'others' })).toBe(false);
    for (const name of ['com.apple.tccd', 'com.apple.pasteboard.1', 'com.apple.securityd.xpc'])
      expect(decide(profile, { operation: 'mach-lookup', name })).toBe(false);
    expect(decide(profile, { operation: 'mach-lookup', name: 'com.apple.logd' })).toBe(true);
    expect(decide(profile, { operation: 'sysctl-read', name: 'kern.hostname' })).toBe(false);
    expect(decide(profile, { operation: 'sysctl-read', name: 'hw.ncpu' })).toBe(true);
  });

  it('that only confines shows the host’s libraries, the way to the root, and nothing else of the host', () => {
    const profile = made({}, 'confine');
    const may = (operation: string, path: string): boolean => decide(profile, { operation, path });
    expect(may('file-read-data', '/usr/lib/dyld')).toBe(true);
    expect(may('process-exec*', '/usr/lib/dyld')).toBe(true);
    expect(may('file-write-data', '/usr/lib/dyld')).toBe(false);
    expect(may('file-read-data', '/Users/ada/.ssh/id')).toBe(false);
    expect(may('file-read-metadata', '/private/var')).toBe(true);
    expect(may('file-read-data', '/private/var')).toBe(false);
    expect(may('file-read-data', `${ROOT}x/other`)).toBe(false);
    expect(may('process-exec*', '/bin/ps')).toBe(false);
    expect(may('file-write-data', '/dev/null')).toBe(true);
    expect(may('file-write-data', '/dev/disk0')).toBe(false);
  });

  it('lets the process use its terminal, and no other', () => {
    const profile = made({ process: { terminal: true } }, 'confine', { terminalPath: '/dev/ttys009' });
    for (const operation of ['file-read-data', 'file-write-data', 'file-ioctl']) {
      expect(decide(profile, { operation, path: '/dev/ttys009' })).toBe(true);
      expect(decide(profile, { operation, path: '/dev/ttys001' })).toBe(false);
    }
  });

  it('cannot be written by a path', () => {
    const hostile = '/a") (allow default) ("';
    const mounts: JailMount[] = [{ kind: 'tmpfs', target: hostile, readOnly: true, options: [] }];
    const spec = exampleSpec({ ...quiet, mounts });
    const { text, parameters } = seatbeltProfile(jailPolicy(spec), { mode: 'chroot', rootPath: ROOT });
    expect(text).not.toContain('allow default');
    expect(Object.values(parameters)).toContain(hostile);
  });

  it('keeps every form below the limit of 16 KiB for as many mounts as people have', () => {
    const mounts = Array.from(
      { length: 60 },
      (_, index): JailMount => ({
        kind: 'tmpfs',
        target: `/m/${index}`,
        readOnly: true,
        options: ['noexec'],
      }),
    );
    const { text } = seatbeltProfile(jailPolicy(exampleSpec({ ...quiet, mounts })), {
      mode: 'chroot',
      rootPath: ROOT,
    });
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThan(1 << 14);
  });
});

describe('the reader of profiles', () => {
  const decided = (rules: string, attempt: Attempt): boolean =>
    decide(readProfile(`(version 1)(deny default)${rules}`, {}), attempt);

  it.each([
    ['(allow file-read* (subpath "/a/"))', /slash/],
    ['(allow file-reed* (subpath "/a"))', /unknown operation/],
    ['(allow file-read* (path "/a"))', /unknown filter/],
    ['(allow network-outbound (remote ip "192.0.2.1:80"))', /\* or localhost/],
    ['(allow file-read* (subpath "/a")', /not closed/],
    ['(allow file-read* (subpath (param "X")))', /no value/],
  ])('refuses %s', (rules, reason) => expect(() => decided(rules, { operation: 'signal' })).toThrow(reason));

  it.each([
    ['(allow file-read*)(deny file-read* (subpath "/a"))', { operation: 'file-read-data', path: '/a/b' }],
    ['(deny file-write-unlink)(allow file-write*)', { operation: 'file-write-unlink', path: '/a' }],
    ['(allow file-read* (subpath "/a"))(deny file-read*)', { operation: 'file-read-data', path: '/a' }],
  ])('refuses to decide where precedence would: %s', (rules, attempt) =>
    expect(() => decided(rules, attempt)).toThrow(/precedence/),
  );
});
