/** The devices of the host that a container asks for (moby: oci.DevicesFromPath). */
import { readdirSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { DrydockError, errorCode } from '#common/errors';
import type { JailDevice } from '../runtime/runtime.ts';

/** The devices themselves: a folder, such as `/dev/snd`, stands for those below it. @throws ERR_JAIL in dockerd's words */
export function devicesOf(wishes: readonly JailDevice[]): JailDevice[] {
  return wishes.flatMap((wish) => {
    const found = devicesBelow(wish);
    if (found.length === 0) throw noDevice(wish.hostPath, 'not a device node');
    return found;
  });
}

function devicesBelow(wish: JailDevice): JailDevice[] {
  const stat = statOf(wish.hostPath);
  if (stat.isCharacterDevice() || stat.isBlockDevice()) return [wish];
  if (!stat.isDirectory()) return [];
  return readdirSync(wish.hostPath).flatMap((name) =>
    devicesBelow({ ...wish, hostPath: join(wish.hostPath, name), path: join(wish.path, name) }),
  );
}

function statOf(path: string): Stats {
  try {
    return statSync(path);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') throw noDevice(path, 'no such file or directory');
    throw error;
  }
}

function noDevice(path: string, reason: string): DrydockError {
  return new DrydockError(
    'ERR_JAIL',
    `error gathering device information while adding custom device ${JSON.stringify(path)}: ${reason}`,
  );
}
