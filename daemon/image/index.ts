/** Images and the root file systems of containers: opens what is in the data root and puts the parts together. */
import { mkdir, statfs } from 'node:fs/promises';
import type { Clock } from '#common/clock';
import type { UserMaps } from '#common/id-map';
import type { Log } from '#common/log';
import { bootId } from '../store/boot-id.ts';
import { ContentStore } from './content.ts';
import { DelayedSync } from './delayed-sync.ts';
import { LAYER_BYTES_MAX } from './extract.ts';
import { Images } from './images.ts';
import { LayerStore } from './layers.ts';
import { Library } from './library.ts';
import { OverlayDriver } from './overlay-driver.ts';
import { ImageRecords } from './records.ts';
import { Registries, type RegistryOptions } from './registry/index.ts';
import { Roots } from './roots.ts';
import { chooseDriver, type StorageDriver, type StorageHost, thisHost } from './storage-driver.ts';
import type { ImageEvent } from './store.ts';
import { VfsDriver } from './vfs-driver.ts';
import { FileWorkers } from './workers.ts';

export { hostOs } from './config-file.ts';
export { ensureHostImage } from './host-image.ts';
export type { StorageDriver } from './storage-driver.ts';

export interface ImageOptions {
  /** Everything of images lives below it, mounts too: two daemons with different data roots never meet. */
  dataRoot: string;
  log: Log;
  clock: Clock;
  /** How the users of containers are those of the machine, when they are others. */
  userMaps?: UserMaps | undefined;
  /** Undefined: overlay2 or apfs where it works, else vfs. */
  driver?: StorageDriver;
  /** The machine that the driver is chosen for; this one unless told otherwise. */
  host?: StorageHost;
  onEvent?: (event: ImageEvent) => void;
  /** How registries are reached. */
  registry?: Partial<RegistryOptions>;
  /** Bytes that one layer may unpack to. */
  layerBytesMax?: number;
}

/** The opened parts. close() ends worker threads; mounts stay, they belong to containers. */
export interface OpenedImages {
  images: Images;
  roots: Roots;
  /** Facts for `docker info`: DriverStatus. */
  driverStatus: [string, string][];
  /** How registries are reached from now on. */
  reloadRegistries(options: Partial<RegistryOptions>): void;
  close(): Promise<void>;
}

/**
 * Opens the images of a data root, and removes what a killed daemon left unfinished.
 * @throws DrydockError ERR_STORAGE_DRIVER when the driver that was asked for does not work here.
 */
export async function openImages(options: ImageOptions): Promise<OpenedImages> {
  const { dataRoot, log, clock } = options;
  const host = options.host ?? thisHost;
  await mkdir(`${dataRoot}/overlay2`, { recursive: true, mode: 0o700 });
  const driverName = await chooseDriver(dataRoot, options.driver, host, log);

  const records = new ImageRecords(`${dataRoot}/image`, log);
  const driverRoot = `${dataRoot}/${driverName}`;
  const workers = new FileWorkers(clock, options.userMaps);
  const sync = new DelayedSync(clock, log, (path) => workers.sync(path));
  const boot = await bootId();
  const content = new ContentStore({ root: `${dataRoot}/image/content`, bootId: boot, sync, log });
  const layers = new LayerStore({
    root: driverRoot,
    content,
    workers,
    sync,
    bootId: boot,
    whiteouts: driverName === 'overlay2' ? 'overlay' : 'files',
    log,
    bytesMax: options.layerBytesMax ?? LAYER_BYTES_MAX,
  });
  await mkdir(driverRoot, { recursive: true, mode: 0o700 });
  await content.open();
  await records.open();
  await layers.open();
  const overlay =
    driverName === 'overlay2' ? new OverlayDriver(driverRoot, layers, options.userMaps) : undefined;
  await overlay?.open();
  const roots = new Roots({
    folder: `${driverRoot}/roots`,
    driver:
      overlay ?? new VfsDriver(layers, options.userMaps, driverName === 'apfs' ? host.cloneFile : undefined),
    layers,
    layersOf: (imageId) => records.get(imageId)?.layers,
    maps: options.userMaps,
    log,
  });
  await roots.open();
  const library = new Library({
    content,
    layers,
    records,
    workers,
    layersInUse: () => roots.layersInUse(),
    rootOf: (id) => ({ layers: roots.layersOf(id), packed: () => roots.packed(id) }),
    log,
    clock,
    onEvent: options.onEvent ?? (() => {}),
  });
  // What a damaged record is of may still be wanted, by whoever brings the record back.
  const swept = await library.open({ sweep: !roots.isDamaged });
  if (swept.blobs + swept.layers > 0) log.info(swept, 'removed blobs and layers that no image needs');
  const registries = new Registries(library, clock, options.registry);
  return {
    images: new Images(library, registries),
    roots,
    reloadRegistries: (next) => registries.reload(next),
    driverStatus: driverName === 'overlay2' ? await overlayStatus(dataRoot) : [],
    async close() {
      sync.close();
      library.close();
      await workers.close();
      await overlay?.close();
    },
  };
}

/** linux/magic.h, with the names that dockerd prints. */
const FILE_SYSTEMS: Record<number, string> = {
  61267: 'extfs',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  16914836: 'tmpfs',
  801189825: 'zfs',
};

async function overlayStatus(dataRoot: string): Promise<[string, string][]> {
  const { type } = await statfs(dataRoot);
  return [
    ['Backing Filesystem', FILE_SYSTEMS[type] ?? `0x${type.toString(16)}`],
    ['Supports d_type', 'true'],
    ['Using metacopy', 'false'],
    ['Native Overlay Diff', 'true'],
    ['userxattr', 'false'],
  ];
}
