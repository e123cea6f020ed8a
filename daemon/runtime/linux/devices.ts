/** Device numbers: what a jail's list of devices means to a cgroup. */
import { constants, lstatSync, readdirSync, statSync } from 'node:fs';
import type { JailDevice, JailDeviceRule } from '../runtime.ts';
import type { DeviceRule } from './cgroup.ts';
import { splitDevice } from './device-number.ts';

/** The rules that allow these devices of the host, and what else was asked for. */
export function deviceRules(devices: JailDevice[], further: JailDeviceRule[] = []): DeviceRule[] {
  const rules = devices.map(({ hostPath, access }): DeviceRule => {
    const stat = statSync(hostPath);
    const type = (stat.mode & constants.S_IFMT) === constants.S_IFBLK ? 'b' : 'c';
    return { type, ...splitDevice(stat.rdev), access };
  });
  for (const { type, ...rest } of further)
    for (const kind of type === 'a' ? (['b', 'c'] as const) : [type]) rules.push({ type: kind, ...rest });
  return rules;
}

/** What of the host's /dev belongs to the host's terminals and shared memory, or is made anew in each jail. */
const NOT_SHARED: ReadonlySet<string> = new Set([
  'pts',
  'shm',
  'fd',
  'mqueue',
  'hugepages',
  'console',
  'ptmx',
]);

/** All devices of the host, for privileged jails. */
export function hostDevices(folder = '/dev'): JailDevice[] {
  const devices: JailDevice[] = [];
  for (const name of readdirSync(folder)) {
    if (folder === '/dev' && NOT_SHARED.has(name)) continue;
    const path = `${folder}/${name}`;
    const stat = lstatSync(path);
    if (stat.isDirectory()) devices.push(...hostDevices(path));
    else if (stat.isCharacterDevice() || stat.isBlockDevice())
      devices.push({ hostPath: path, path, access: 'rwm' });
  }
  return devices;
}
