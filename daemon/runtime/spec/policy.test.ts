import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { exampleSpec } from '../../../test/support/jail-spec.ts';
import type { JailMount } from '../runtime.ts';
import { type FileAccess, isBelow, jailPolicy, normalPath, ruleFor } from './policy.ts';

const bind = (target: string, readOnly = false, options: string[] = []): JailMount => ({
  kind: 'bind',
  source: '/s',
  target,
  readOnly,
  options,
});

describe('a path inside the root', () => {
  it.each([
    ['/', '/'],
    ['', '/'],
    ['/a//b/./c/', '/a/b/c'],
    ['/../../etc', '/etc'],
    ['/a/../b', '/b'],
  ])('%j is %s', (path, normal) => expect(normalPath(path)).toBe(normal));

  it('is in a folder by whole names', () => {
    expect([isBelow('/ab', '/a'), isBelow('/a/b', '/a'), isBelow('/a', '/a'), isBelow('/a', '/')]).toEqual([
      false,
      true,
      true,
      true,
    ]);
  });
});

describe('the policy of a specification', () => {
  const access = (changes: Parameters<typeof exampleSpec>[0], path: string): FileAccess =>
    ruleFor(jailPolicy(exampleSpec(changes)).files, path).access;

  it('gives the image for writing, unless the root is read-only', () => {
    expect(access({}, '/any/where')).toBe('write');
    expect(access({ readOnlyRoot: true }, '/any/where')).toBe('read');
  });

  it('lets the longest path win, whatever the order', () => {
    const mounts = [bind('/data'), bind('/data/ro', true), bind('/data/ro/again')];
    expect(access({ mounts, readOnlyRoot: true }, '/data/x')).toBe('write');
    expect(access({ mounts }, '/data/ro/x')).toBe('read');
    expect(access({ mounts }, '/data/ro/again/x')).toBe('write');
    expect(access({ mounts, readOnlyRoot: true }, '/datax')).toBe('read');
  });

  it('lets a later mount cover what is below it', () => {
    expect(access({ mounts: [bind('/data/ro', true), bind('/data')] }, '/data/ro/x')).toBe('write');
  });

  it('masks and freezes after all mounts', () => {
    const mounts = [bind('/data'), bind('/data/in')];
    expect(access({ mounts, maskedPaths: ['/data/secret'] }, '/data/secret/x')).toBe('none');
    expect(access({ mounts, readonlyPaths: ['/data'] }, '/data/in/x')).toBe('read');
    expect(access({ mounts, readonlyPaths: ['/data'] }, '/other')).toBe('write');
  });

  it('knows programs that may not be started', () => {
    const { files } = jailPolicy(exampleSpec({ mounts: [bind('/data', false, ['noexec'])] }));
    expect([ruleFor(files, '/data/x').execute, ruleFor(files, '/bin/sh').execute]).toEqual([false, true]);
  });

  it('tells a network from none, the host’s and another’s', () => {
    const namespaces = exampleSpec({}).namespaces;
    const network = (changes: Parameters<typeof exampleSpec>[0]) => jailPolicy(exampleSpec(changes)).network;
    expect(network({})).toBe('attached');
    expect(network({ network: { attached: false, ports: [] } })).toBe('none');
    expect(network({ namespaces: { ...namespaces, network: 'host' } })).toBe('host');
    expect(network({ namespaces: { ...namespaces, network: { pid: 7 } } })).toBe('shared');
  });

  it('denies nothing to a privileged jail and all to others', () => {
    expect(jailPolicy(exampleSpec({ privileged: true })).denials.size).toBe(0);
    expect([...jailPolicy(exampleSpec({})).denials]).toContain('mount');
  });

  it('has one rule for every path, of a path above it', () => {
    const path = fc
      .array(fc.constantFrom('a', 'b', 'c'), { maxLength: 4 })
      .map((parts) => `/${parts.join('/')}`);
    const mounts = fc.array(fc.record({ target: path, readOnly: fc.boolean() }), { maxLength: 5 });
    fc.assert(
      fc.property(mounts, path, (list, where) => {
        const { files } = jailPolicy(
          exampleSpec({ mounts: list.map(({ target, readOnly }) => bind(target, readOnly)) }),
        );
        expect(new Set(files.map((rule) => rule.path)).size).toBe(files.length);
        expect(isBelow(where, ruleFor(files, where).path)).toBe(true);
      }),
    );
  });
});
