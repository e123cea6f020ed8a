/** Image stores in temporary data roots, and archives made entry by entry, for the tests of images. */
import { mkdtempSync, rmSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { Readable } from 'node:stream';
import { systemClock } from '#common/clock';
import { type Log, nullLog } from '#common/log';
import { digestOf } from '../../daemon/image/content.ts';
import { type OpenedImages, openImages, type StorageDriver } from '../../daemon/image/index.ts';
import type { Image, ImageConfig, ImageEvent, Progress } from '../../daemon/image/store.ts';
import { emitHeader, makeHeader, padding, type TarHeader, trailer } from '../../daemon/image/tar/header.ts';

/** An opened store that disposes of itself, its mounts and its folder. */
export interface TestImages extends OpenedImages {
  dataRoot: string;
  events: ImageEvent[];
  /** Closes it and opens the same data root again, as a new daemon would. */
  reopen(): Promise<void>;
  dispose(): Promise<void>;
}

export async function testImages(driver?: StorageDriver, log: Log = nullLog): Promise<TestImages> {
  const dataRoot = mkdtempSync(`${tmpdir()}/drydock-image-`);
  const events: ImageEvent[] = [];
  const open = (): Promise<OpenedImages> =>
    openImages({
      dataRoot,
      log,
      clock: systemClock,
      ...(driver && { driver }),
      // No file system here can clone: a double of macOS says that it does.
      ...(driver === 'apfs' && {
        host: { platform: 'darwin' as const, cloneFile: (from, to) => copyFile(from, to) },
      }),
      onEvent: (event) => void events.push(event),
    });
  const store: TestImages = {
    ...(await open()),
    dataRoot,
    events,
    async reopen() {
      await store.close();
      Object.assign(store, await open());
    },
    async dispose() {
      await store.roots.sweep(new Set());
      await store.close();
      rmSync(dataRoot, { recursive: true, force: true });
    },
  };
  return store;
}

/** An entry of an archive: fields of its header, and its data. */
export type Entry = [
  fields: Partial<TarHeader> & { name: string; type: TarHeader['type'] },
  data?: string | Buffer,
];

export const file = (name: string, data: string | Buffer = '', fields: Partial<TarHeader> = {}): Entry => [
  { name, type: 'file', ...fields },
  data,
];
export const directory = (name: string, fields: Partial<TarHeader> = {}): Entry => [
  { name, type: 'directory', ...fields },
];
export const symlink = (name: string, linkName: string): Entry => [{ name, type: 'symlink', linkName }];
export const hardLink = (name: string, linkName: string): Entry => [{ name, type: 'link', linkName }];

export function tarOf(entries: readonly Entry[]): Buffer {
  const parts = entries.flatMap(([fields, data = '']) => {
    const bytes = Buffer.from(data);
    return [emitHeader(makeHeader({ size: bytes.length, ...fields })), bytes, padding(bytes.length)];
  });
  return Buffer.concat([...parts, trailer()]);
}

/** An archive as `docker save` makes it. `pack` may compress each layer. */
export function dockerArchive(
  layers: readonly (readonly Entry[])[],
  options: { names?: string[]; config?: ImageConfig; pack?: (tar: Buffer) => Buffer } = {},
): Buffer {
  const tars = layers.map(tarOf);
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    created: '2024-01-02T03:04:05Z',
    config: options.config ?? {},
    history: tars.map((_, index) => ({ created_by: `layer ${index}` })),
    rootfs: { type: 'layers', diff_ids: tars.map(digestOf) },
  });
  const manifest = [
    {
      Config: 'config.json',
      RepoTags: options.names ?? null,
      Layers: tars.map((_, index) => `${index}/layer.tar`),
    },
  ];
  return tarOf([
    ...tars.map((tar, index) => file(`${index}/layer.tar`, options.pack?.(tar) ?? tar)),
    file('config.json', config),
    file('manifest.json', JSON.stringify(manifest)),
  ]);
}

export async function load(
  images: TestImages,
  archive: Buffer,
): Promise<{ image: Image; lines: Progress[] }> {
  const lines: Progress[] = [];
  const loaded = await images.images.load(Readable.from(chunks(archive)), (line) => void lines.push(line));
  return { image: loaded[0]!, lines };
}

/** A buffer as a stream would bring it. */
export function* chunks(bytes: Buffer, size = 60_001): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

export async function readAll(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}
