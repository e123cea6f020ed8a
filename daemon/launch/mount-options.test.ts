import { describe, expect, it } from 'vitest';
import {
  MOUNT_ATTR__ATIME,
  MOUNT_ATTR_NOATIME,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  MS_SHARED,
  MS_SLAVE,
} from '#common/native/mount';
import { parseMountOptions } from './mount-options.ts';

describe('mount options', () => {
  it('are sorted into attributes, propagation and what the file system understands', () => {
    const parsed = parseMountOptions(['nosuid', 'noexec', 'size=64m', 'mode=1777', 'rslave', 'ro']);
    expect(parsed.attributes).toEqual({
      set: MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY,
      clear: 0,
      propagation: MS_SLAVE,
    });
    expect(parsed.recursivePropagation).toBe(true);
    expect(parsed.data).toEqual([
      ['size', '64m'],
      ['mode', '1777'],
    ]);
  });

  it('that contradict each other are decided by the later one', () => {
    expect(parseMountOptions(['ro', 'rw']).attributes).toMatchObject({ set: 0, clear: MOUNT_ATTR_RDONLY });
    expect(parseMountOptions(['exec', 'noexec']).attributes).toMatchObject({
      set: MOUNT_ATTR_NOEXEC,
      clear: 0,
    });
    const parsed = parseMountOptions(['rslave', 'shared']);
    expect([parsed.attributes.propagation, parsed.recursivePropagation]).toEqual([MS_SHARED, false]);
  });

  it('of access times replace the whole field', () => {
    expect(parseMountOptions(['strictatime', 'noatime']).attributes).toMatchObject({
      set: MOUNT_ATTR_NOATIME,
      clear: MOUNT_ATTR__ATIME,
    });
  });

  it('named as a property of every object are just unknown', () => {
    expect(parseMountOptions(['constructor', 'rconstructor', 'a=b=c', '']).data).toEqual([
      ['constructor'],
      ['rconstructor'],
      ['a', 'b=c'],
    ]);
  });

  it('say whether a bind mount takes others along', () => {
    expect(parseMountOptions([]).recursiveBind).toBe(true);
    expect(parseMountOptions(['bind']).recursiveBind).toBe(false);
  });
});
