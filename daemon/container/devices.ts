/** The devices of the host that a container asks for (moby: oci.DevicesFromPath). */
import { lstatSync, readdirSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { DrydockError } from '#common/errors';
import type { JailDevice } from '../runtime/runtime.ts';

/** The devices themselves: a folder, such as `/dev/snd`, stands for those below it. @throws ERR_JAIL in dockerd's words */
export function devicesOf(wishes: readonly JailDevice[]): JailDevice[] {
  return wishes.flatMap((wish) => {
    const stat = statSync(wish.hostPath, { throwIfNoEntry: false });
    if (!stat) throw noDevice(wish.hostPath, 'no such file or directory');
    if (isDevice(stat)) return [wish];
    const found = stat.isDirectory() ? devicesBelow(wish) : [];
    if (found.length === 0) throw noDevice(wish.hostPath, 'not a device node');
    return found;
  });
}

const isDevice = (stat: Stats): boolean => stat.isCharacterDevice() || stat.isBlockDevice();

/** Below a folder links are not followed: those of `/dev/fd` lead anywhere. */
function devicesBelow(wish: JailDevice): JailDevice[] {
  return readdirSync(wish.hostPath).flatMap((name) => {
    const below = { ...wish, hostPath: join(wish.hostPath, name), path: join(wish.path, name) };
    const stat = lstatSync(below.hostPath, { throwIfNoEntry: false });
    if (stat?.isDirectory()) return devicesBelow(below);
    return stat && isDevice(stat) ? [below] : [];
  });
}

function noDevice(path: string, reason: string): DrydockError {
  return new DrydockError(
    'ERR_JAIL',
    `error gathering device information while adding custom device ${JSON.stringify(path)}: ${reason}`,
  );
}
