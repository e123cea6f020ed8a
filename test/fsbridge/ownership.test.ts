import { describe, expect, it } from 'vitest';
import { FakeKernel } from './kernel.ts';

const ROOT = 1;
const EPERM = 1;
const ENODATA = 61;
const SET_UID = 2;
const SET_GID = 4;
const ATTRIBUTE = 'user.com.docker.owner';

function started(): FakeKernel {
  const kernel = new FakeKernel({ ownership: 'caller', consistency: 'cached' });
  kernel.init();
  return kernel;
}

function ownerSeenBy(kernel: FakeKernel, uid: number, gid: number, node: bigint): string {
  kernel.uid = uid;
  kernel.gid = gid;
  const body = kernel.ok(3, node, 0, 0, 0n);
  kernel.uid = 0;
  kernel.gid = 0;
  return `${body.readUInt32LE(84)}:${body.readUInt32LE(88)}`;
}

function chown(kernel: FakeKernel, node: bigint, valid: number, uid: number, gid: number): Buffer {
  return kernel.ok(4, node, valid, 0, 0n, 0n, 0n, 0n, 0n, 0n, 0, 0, 0, 0, 0, uid, gid, 0);
}

describe('owners recorded beside files', () => {
  it('who asks sees itself until somebody changes the owner', () => {
    const kernel = started();
    kernel.uid = 1000;
    const { node } = kernel.create(ROOT, 'a').entry;
    expect(ownerSeenBy(kernel, 1000, 1000, node)).toBe('1000:1000');
    expect(ownerSeenBy(kernel, 7, 8, node)).toBe('7:8');
    chown(kernel, node, SET_UID | SET_GID, 33, 44);
    expect(ownerSeenBy(kernel, 7, 8, node)).toBe('33:44');
    // The host's owner is still the server.
    kernel.host.statAt(kernel.host.root, 'a');
    expect(kernel.host.stat[5]).toBe(0);
  });

  it('a record outlives the session, and half of it may be given', () => {
    const kernel = started();
    const { node } = kernel.create(ROOT, 'a').entry;
    chown(kernel, node, SET_GID, 0, 44);
    expect(ownerSeenBy(kernel, 7, 8, node)).toBe('7:44');
    const second = new FakeKernel({ ownership: 'caller' }, kernel.host);
    second.init();
    expect(ownerSeenBy(second, 9, 9, second.lookup(ROOT, 'a').node)).toBe('9:44');
  });

  it('what differs by who asks is not for the kernel to remember', () => {
    const kernel = started();
    const { node } = kernel.create(ROOT, 'a').entry;
    const attrSeconds = (): bigint => kernel.ok(3, node, 0, 0, 0n).readBigUInt64LE(0);
    expect(attrSeconds()).toBe(0n);
    chown(kernel, node, SET_UID | SET_GID, 1, 1);
    expect(attrSeconds()).toBe(1n);
  });

  it('the record is hidden from the container and safe from it', () => {
    const kernel = started();
    const { node } = kernel.create(ROOT, 'a').entry;
    kernel.ok(21, node, 1, 0, 'user.other', Buffer.from('x'));
    chown(kernel, node, SET_UID, 5, 0);
    expect(kernel.error(22, node, 100, 0, ATTRIBUTE)).toBe(ENODATA);
    expect(kernel.error(21, node, 3, 0, ATTRIBUTE, Buffer.from('0:0'))).toBe(EPERM);
    expect(kernel.error(24, node, ATTRIBUTE)).toBe(EPERM);
    expect(kernel.ok(23, node, 100, 0).toString()).toBe('user.other\0');
    expect(kernel.ok(23, node, 0, 0).readUInt32LE(0)).toBe('user.other\0'.length);
  });

  it('a change of owner takes set-uid away', () => {
    const kernel = started();
    const { node } = kernel.create(ROOT, 'a', 2, 0o6755).entry;
    const body = chown(kernel, node, SET_UID, 5, 0);
    expect(body.readUInt32LE(76)).toBe(0o100755);
  });

  it('links keep a changed owner while they are known; junk in a record is no owner', () => {
    const kernel = started();
    const link = kernel.entry(kernel.ok(6, ROOT, 'link', 'anywhere')).node;
    chown(kernel, link, SET_UID | SET_GID, 5, 6);
    expect(ownerSeenBy(kernel, 9, 9, link)).toBe('5:6');
    const { node } = kernel.create(ROOT, 'a').entry;
    const memory = { bytes: Buffer.from('5:6:rm -rf'), words: new Uint32Array(4), address: 0 };
    kernel.host.setXattr(kernel.host.root, 'a', ATTRIBUTE, memory, 0, 10, 0);
    expect(ownerSeenBy(kernel, 9, 9, node)).toBe('9:9');
  });
});
