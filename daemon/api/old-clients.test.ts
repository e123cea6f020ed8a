import { describe, expect, it } from 'vitest';
import type { CreateRequest } from '../container/types.ts';
import { forVersion } from './old-clients.ts';

const bind = { Type: 'bind', Source: '/a', Target: '/b' };
const mounts = (...Mounts: object[]): CreateRequest => ({ HostConfig: { Mounts } }) as CreateRequest;

describe('a create request of an older client', () => {
  it.each<[string, CreateRequest, number, CreateRequest, CreateRequest]>([
    [
      'removes its containers itself',
      { HostConfig: { AutoRemove: true } },
      25,
      { HostConfig: { AutoRemove: false } },
      { HostConfig: { AutoRemove: true } },
    ],
    ['shares its IPC namespace', {}, 40, { HostConfig: { IpcMode: 'shareable' } }, { HostConfig: {} }],
    [
      'shares the cgroup namespace',
      { HostConfig: { IpcMode: 'private' } },
      41,
      { HostConfig: { CgroupnsMode: 'host' } },
      { HostConfig: {} },
    ],
    [
      'has no size of its terminal',
      { HostConfig: { ConsoleSize: [1, 2] } },
      42,
      { HostConfig: {} },
      { HostConfig: { ConsoleSize: [1, 2] } },
    ],
    [
      'makes no folders to bind',
      mounts({ ...bind, BindOptions: { CreateMountpoint: true } }),
      42,
      mounts({ ...bind, BindOptions: {} }),
      mounts({ ...bind, BindOptions: { CreateMountpoint: true } }),
    ],
    ['may give options of other mounts', mounts({ ...bind, VolumeOptions: {} }), 42, mounts(bind), mounts()],
    [
      'has no annotations',
      { HostConfig: { Annotations: { a: 'b' } } },
      43,
      { HostConfig: {} },
      { HostConfig: { Annotations: { a: 'b' } } },
    ],
    [
      'has one interval of health checks',
      { Healthcheck: { StartInterval: 5 } },
      44,
      { Healthcheck: {} },
      { Healthcheck: { StartInterval: 5 } },
    ],
    [
      'knows no priority of gateways',
      { NetworkingConfig: { EndpointsConfig: { a: { GwPriority: 1 } } } },
      48,
      { NetworkingConfig: { EndpointsConfig: { a: {} } } },
      { NetworkingConfig: { EndpointsConfig: { a: { GwPriority: 1 } } } },
    ],
  ])('%s', (_, request, since, before, after) => {
    expect(forVersion(request, since - 1, '1')).toMatchObject(before);
    expect(JSON.stringify(forVersion(request, since - 1, '1'))).not.toMatch(
      /VolumeOptions|Annotations|GwPriority|StartInterval/,
    );
    if (after.HostConfig?.Mounts?.length !== 0) expect(forVersion(request, since, '1')).toMatchObject(after);
  });

  it.each<[string, CreateRequest, number]>([
    ['VolumeOptions must not be specified on mount type "bind"', mounts({ ...bind, VolumeOptions: {} }), 51],
    [
      'Container cannot be created with multiple network endpoints: a, b',
      { NetworkingConfig: { EndpointsConfig: { a: {}, b: {} } } },
      43,
    ],
    [
      'BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer',
      mounts({ ...bind, BindOptions: { ReadOnlyForceRecursive: true } }),
      43,
    ],
    [
      'VolumeOptions.Subpath needs API v1.45 or newer',
      mounts({ Type: 'volume', VolumeOptions: { Subpath: 'x' } }),
      44,
    ],
    ['Mount type "Image" needs API v1.48 or newer', mounts({ Type: 'image' }), 47],
  ])('is refused: %s', (message, request, minor) => {
    expect(() => forVersion(request, minor, '1')).toThrow(message);
  });

  it('leaves the request itself as it is', () => {
    const request = mounts({ ...bind, BindOptions: { CreateMountpoint: true } });
    const text = JSON.stringify(request);
    forVersion(request, 24, '1');
    expect(JSON.stringify(request)).toBe(text);
  });
});
