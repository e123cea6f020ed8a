import { expect, it } from 'vitest';
import { headerInside, headerOnDisk } from './owners.ts';
import { makeHeader } from './tar/header.ts';

const ranges = [{ inside: 0, outside: 100_000, length: 65_536 }];
const maps = { uids: ranges, gids: ranges };
/** cap_net_raw=ep, revision 2. */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex');
const header = makeHeader({
  name: 'ping',
  type: 'file',
  uid: 7,
  gid: 50,
  xattrs: new Map([['security.capability', new Uint8Array(CAPABILITY)]]),
});

it('gives files on disk to the users that containers have on the machine, and back', () => {
  const disk = headerOnDisk(header, maps);
  expect([disk.uid, disk.gid]).toEqual([100_007, 100_050]);
  expect(Buffer.from(disk.xattrs.get('security.capability')!).toString('hex')).toBe(
    '0100000300200000000000000000000000000000a0860100',
  );
  const back = headerInside(disk, maps);
  expect([back.uid, back.gid]).toEqual([7, 50]);
  expect(Buffer.from(back.xattrs.get('security.capability')!).equals(CAPABILITY)).toBe(true);
});

it('changes nothing without maps', () => {
  expect(headerOnDisk(header, undefined)).toBe(header);
  expect(headerInside(header, undefined)).toBe(header);
});

it('refuses an owner that is not mapped, and shows one of the machine as nobody', () => {
  expect(() => headerOnDisk({ ...header, uid: 65_536 }, maps)).toThrow(/65536:50/);
  expect(headerInside(header, maps)).toMatchObject({ uid: 65_534, gid: 65_534 });
});
