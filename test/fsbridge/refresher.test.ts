import { describe, expect, it } from 'vitest';
import { Refresher } from '../../fsbridge/notify/refresher.ts';
import { FakeKernel } from './kernel.ts';

const ROOT = 1;

/** A kernel that knows `dir/file` and was told of both, and what is refreshed. */
function known(): {
  kernel: FakeKernel;
  refresher: Refresher;
  refreshed: string[];
  dir: bigint;
  file: bigint;
} {
  const kernel = new FakeKernel({ consistency: 'cached' });
  kernel.init();
  const dir = kernel.mkdir(ROOT, 'dir').node;
  const { entry, fh } = kernel.create(dir, 'file');
  kernel.release(entry.node, fh);
  for (const node of [BigInt(ROOT), dir]) kernel.ok(3, node, 0, 0, 0n);
  kernel.clock.advance(1);
  const refreshed: string[] = [];
  const refresher = new Refresher(kernel.session.server, async (path, mode) => {
    refreshed.push(`${path} ${mode.toString(8)}`);
    // What the mount does with it: the kernel sets the mode and is told the attributes.
    kernel.ok(
      4,
      path === 'dir/file' ? entry.node : path === 'dir' ? dir : ROOT,
      1,
      0,
      0n,
      0n,
      0n,
      0n,
      0n,
      0n,
      0,
      0,
      0,
      mode,
      0,
      0,
      0,
      0,
    );
  });
  return { kernel, refresher, refreshed, dir, file: entry.node };
}

/** The host's own descriptor of `dir`. */
function hostDir(kernel: FakeKernel): number {
  return kernel.host.openPath(kernel.host.root, 'dir');
}

describe('telling of a change where the protocol has no word for it', () => {
  it('sets the mode that a changed file has, once, and is not started again by that', async () => {
    const { kernel, refresher, refreshed } = known();
    kernel.host.chmod(hostDir(kernel), 'file', 0o640);
    refresher.changed('dir/file');
    await Promise.resolve();
    expect(refreshed).toEqual(['dir/file 640']);
    refresher.changed('dir/file');
    await Promise.resolve();
    expect(refreshed).toHaveLength(1);
  });

  it('sets that of the folder for what appeared in it or is gone', async () => {
    const { kernel, refresher, refreshed } = known();
    kernel.host.mkdir(hostDir(kernel), 'new', 0o755);
    refresher.changed('dir/new');
    await Promise.resolve();
    expect(refreshed).toEqual(['dir 755']);
    kernel.clock.advance(1);
    kernel.host.unlink(hostDir(kernel), 'file');
    refresher.changed('dir/file');
    await Promise.resolve();
    await Promise.resolve();
    expect(refreshed).toEqual(['dir 755', 'dir 755']);
  });

  it('leaves out what the mount did itself, what it has never shown, and links', async () => {
    const { kernel, refresher, refreshed, file } = known();
    kernel.ok(4, file, 1, 0, 0n, 0n, 0n, 0n, 0n, 0n, 0, 0, 0, 0o600, 0, 0, 0, 0);
    refresher.changed('dir/file');
    kernel.host.symlink('file', hostDir(kernel), 'link');
    kernel.ok(3, kernel.lookup(ROOT, 'dir').node, 0, 0, 0n);
    refresher.changed('dir/link');
    refresher.changed('unknown/file');
    await Promise.resolve();
    expect(refreshed).toEqual([]);
  });

  it('goes on after one that cannot be refreshed', async () => {
    const { kernel } = known();
    const asked: string[] = [];
    const refresher = new Refresher(kernel.session.server, (path) => {
      asked.push(path);
      return Promise.reject(new Error('read-only'));
    });
    kernel.host.chmod(hostDir(kernel), 'file', 0o640);
    kernel.host.chmod(kernel.host.root, 'dir', 0o700);
    refresher.changed('dir/file');
    await expect.poll(() => asked).toEqual(['dir/file', 'dir']);
  });
});
