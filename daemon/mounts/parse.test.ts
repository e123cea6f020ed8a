import { describe, expect, it } from 'vitest';
import { collectMounts, parseBind, parseMount } from './parse.ts';

describe('-v', () => {
  it.each([
    ['/h:/c', { Type: 'bind', Source: '/h', Destination: '/c', RW: true, consistency: 'consistent' }],
    ['/h/:/c/', { Type: 'bind', Source: '/h', Destination: '/c' }],
    ['/h:/c:ro', { Type: 'bind', RW: false, Mode: 'ro' }],
    ['/h:/c:cached', { Type: 'bind', RW: true, consistency: 'cached' }],
    ['/h:/c:ro,delegated', { Type: 'bind', RW: false, consistency: 'delegated' }],
    ['/h:/c:rslave,z', { Type: 'bind', Propagation: 'rslave' }],
    ['/h/../x:/c', { Type: 'bind', Source: '/x' }],
    ['vol:/c', { Type: 'volume', Name: 'vol', Destination: '/c', RW: true, noCopy: false, anonymous: false }],
    ['vol:/c:nocopy,ro', { Type: 'volume', Name: 'vol', RW: false, noCopy: true }],
    ['/c', { Type: 'volume', Name: '', Destination: '/c', anonymous: true }],
  ])('%s', (spec, expected) => {
    expect(parseBind(spec)).toMatchObject(expected);
  });

  it.each([
    ['', /invalid volume specification/],
    ['/a:/b:ro:rw', /invalid volume specification/],
    ['/a:b', /mount path must be absolute/],
    ['/a:/', /destination can't be '\/'/],
    ['/a:/b:ro,rw', /invalid mode: ro,rw/],
    ['/a:/b:nonsense', /invalid mode: nonsense/],
    ['/a:/b:nocopy', /invalid mode/],
    ['vol:/b:rslave', /invalid mode/],
    ['a/b:/c', /includes invalid characters for a local volume name/],
    [':/c', /invalid volume specification/],
  ])('%j is refused', (spec, message) => {
    expect(() => parseBind(spec)).toThrow(message);
  });
});

describe('--mount', () => {
  it.each([
    [
      { Type: 'bind', Source: '/h', Target: '/c', ReadOnly: true },
      { Type: 'bind', Source: '/h', RW: false },
    ],
    [
      { Type: 'volume', Target: '/c' },
      { Type: 'volume', Name: '', anonymous: true },
    ],
    [
      { Type: 'volume', Source: 'vv', Target: '/c', VolumeOptions: { NoCopy: true, Subpath: 'a/b' } },
      { Name: 'vv', noCopy: true, subpath: 'a/b' },
    ],
    [
      { Type: 'tmpfs', Target: '/c', TmpfsOptions: { SizeBytes: 4096, Mode: 0o700 } },
      { Type: 'tmpfs', tmpfsOptions: ['nosuid', 'nodev', 'noexec', 'size=4096', 'mode=700'] },
    ],
  ])('%j', (request, expected) => {
    expect(parseMount(request)).toMatchObject(expected);
  });

  it.each([
    [{ Type: 'bind', Target: '/c' }, /field Source must not be empty/],
    [{ Type: 'bind', Source: 'rel', Target: '/c' }, /mount path must be absolute/],
    [{ Type: 'bind', Source: '/h' }, /field Target must not be empty/],
    [
      { Type: 'bind', Source: '/h', Target: '/c', VolumeOptions: {} },
      /field VolumeOptions must not be specified/,
    ],
    [{ Type: 'tmpfs', Source: '/h', Target: '/c' }, /field Source must not be specified/],
    [
      { Type: 'volume', Source: 'vv', Target: '/c', VolumeOptions: { Subpath: '../x' } },
      /subpath must be a relative path/,
    ],
    [{ Type: 'npipe', Target: '/c' }, /for type "npipe": mount type unknown/],
    [{ Type: 'volume', Target: '/' }, /destination can't be/],
  ])('%j is refused', (request, message) => {
    expect(() => parseMount(request)).toThrow(message);
  });
});

describe('all mounts of a container', () => {
  it('the image’s volumes give way to what was asked for; a mount inside another comes after it', () => {
    const points = collectMounts(
      { Binds: ['/h:/data/in/side', 'vol:/data'], Tmpfs: { '/t': 'size=1m,exec,ro' } },
      { '/data': {}, '/other': {} },
      [],
    );
    expect(points.map((p) => [p.Destination, p.Type])).toEqual([
      ['/data', 'volume'],
      ['/t', 'tmpfs'],
      ['/other', 'volume'],
      ['/data/in/side', 'bind'],
    ]);
    expect(points[1]).toMatchObject({ RW: false, tmpfsOptions: ['nosuid', 'nodev', 'size=1m'] });
  });

  it('two for one place are refused, also across -v and --mount', () => {
    expect(() =>
      collectMounts({ Binds: ['/h:/c'], Mounts: [{ Type: 'volume', Target: '/c/' }] }, undefined, []),
    ).toThrow('Duplicate mount point: /c');
  });

  it('a tmpfs option that is none is refused', () => {
    expect(() => collectMounts({ Tmpfs: { '/t': 'size=1m,evil=1' } }, undefined, [])).toThrow(
      /invalid tmpfs option/,
    );
  });
});
