/**
 * What a create request means in the version of the API that its client speaks: fields that came later are left out, defaults
 * that have changed are the old ones, and what a version began to refuse is refused from there on (moby:
 * postContainersCreate). Pure.
 */
import type { CreateRequest, HostConfig, MountRequest } from '../container/types.ts';
import { badParameter } from './errors.ts';

const OPTIONS = { VolumeOptions: 'volume', BindOptions: 'bind', TmpfsOptions: 'tmpfs' } as const;

/** A request as the newest version would say it. @throws ERR_BAD_PARAMETER for what the client's version doesn't have */
export function forVersion(body: CreateRequest, minor: number, cgroupVersion: '1' | '2'): CreateRequest {
  const request: CreateRequest = { ...body };
  const host: HostConfig = { ...body.HostConfig };
  request.HostConfig = host;
  if (host.Mounts) host.Mounts = host.Mounts.map((mount) => mountFor(mount, minor));
  if (minor < 25) host.AutoRemove = false;
  if (minor < 40) host.IpcMode ||= 'shareable';
  if (minor < 41 && cgroupVersion === '1') host.CgroupnsMode ||= 'host';
  if (minor < 42) delete host.ConsoleSize;
  if (minor < 43) delete host.Annotations;
  if (minor < 44) {
    if (request.Healthcheck) {
      const { StartInterval: _, ...health } = request.Healthcheck;
      request.Healthcheck = health;
    }
    const names = Object.keys(request.NetworkingConfig?.EndpointsConfig ?? {});
    if (names.length > 1)
      throw badParameter(`Container cannot be created with multiple network endpoints: ${names.join(', ')}`);
  }
  if (minor < 48) withoutPriorities(request);
  return request;
}

function mountFor(mount: MountRequest, minor: number): MountRequest {
  const type = mount.Type ?? '';
  const result: MountRequest = { ...mount };
  for (const [field, owner] of Object.entries(OPTIONS) as [keyof typeof OPTIONS, string][]) {
    if (!mount[field] || type === owner) continue;
    if (minor >= 42)
      throw badParameter(`${field} must not be specified on mount type ${JSON.stringify(type)}`);
    // Bind options on other types were always refused.
    if (field !== 'BindOptions') delete result[field];
  }
  if (result.BindOptions) {
    result.BindOptions = { ...result.BindOptions };
    if (minor < 40) delete result.BindOptions.NonRecursive;
    if (minor < 42) delete result.BindOptions.CreateMountpoint;
    if (minor < 44 && result.BindOptions.ReadOnlyForceRecursive)
      throw badParameter('BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer');
  }
  if (minor < 45 && result.VolumeOptions?.Subpath)
    throw badParameter('VolumeOptions.Subpath needs API v1.45 or newer');
  if (minor < 48 && type === 'image') throw badParameter('Mount type "Image" needs API v1.48 or newer');
  return result;
}

/** All endpoints had the same priority before 1.48. */
function withoutPriorities(request: CreateRequest): void {
  const asked = request.NetworkingConfig?.EndpointsConfig;
  if (!asked) return;
  request.NetworkingConfig = {
    ...request.NetworkingConfig,
    EndpointsConfig: Object.fromEntries(
      Object.entries(asked).map(([name, settings]) => {
        const { GwPriority: _, ...rest } = settings ?? {};
        return [name, rest];
      }),
    ),
  };
}
