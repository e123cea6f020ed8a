/**
 * What becomes of a build's result besides an image of this daemon: its files or an archive, sent to the client
 * (moby.filesync.v1.FileSend). As `--output type=local`, `tar`, `oci` and `docker`.
 */
import { Readable } from 'node:stream';
import { DrydockError } from '#common/errors';
import { packTree } from '../../image/pack.ts';
import { saveArchive } from '../../image/save.ts';
import { withRoot } from '../scratch-root.ts';
import type { Builds } from '../service.ts';
import { BytesMessage } from './control-messages.ts';
import { sendFolder } from './filesend.ts';
import type { Session } from './sessions.ts';
import type { Trace } from './trace.ts';

const PATH = '/moby.filesync.v1.FileSend/DiffCopy';
/** What one message carries: well below gRPC's limit. */
const CHUNK_BYTES = 1 << 20;
/** The options of each type; `dest` and `context` are the client's own business. */
const OPTIONS: Record<string, string[]> = {
  local: [],
  tar: [],
  oci: ['name', 'tar'],
  docker: ['name', 'tar'],
};

/** One `--output`. */
export interface OutputRequest {
  type: string;
  options: ReadonlyMap<string, string>;
  /** Which of the client's outputs it is. */
  index: number;
}

/** An image to send, and where to. */
export interface ExportParts {
  imageId: string;
  output: OutputRequest;
  session: Session;
  trace: Trace;
  signal: AbortSignal;
}

/** Refuses an output that can't be made. @throws ERR_BAD_PARAMETER */
export function checkOutput({ type, options }: OutputRequest): void {
  const known = OPTIONS[type];
  if (!known)
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      `exporter ${JSON.stringify(type)} could not be found: --output type=${type} is not supported by this daemon: use image, local, tar, oci or docker`,
    );
  for (const [name, value] of options)
    if (!known.includes(name) && name !== 'dest' && !(name === 'tar' && value === 'true'))
      throw new DrydockError(
        'ERR_BAD_PARAMETER',
        `the option ${name} of --output type=${type} is not supported`,
      );
  if (options.get('tar') === 'false')
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      `--output type=${type},tar=false is not supported: leave tar out`,
    );
}

/** Sends. @throws DrydockError ERR_SESSION when the client takes none */
export async function exportResult(builds: Builds, parts: ExportParts): Promise<void> {
  const { output, session, trace } = parts;
  checkOutput(output);
  if (!session.methods.has(PATH.toLowerCase()))
    throw new DrydockError('ERR_SESSION', `the client takes no files for --output type=${output.type}`);
  const isLocal = output.type === 'local';
  const what = isLocal
    ? 'client directory'
    : output.type === 'tar'
      ? 'client tarball'
      : `${output.type} image format`;
  await trace.run(`exporting to ${what}`, async () => {
    const layers = builds.images.library.layersOf(parts.imageId);
    if (isLocal) await withRoot(builds.roots, layers, (root) => sendRoot(builds, parts, root));
    else if (output.type === 'tar')
      await withRoot(builds.roots, layers, (root) =>
        sendBytes(parts, packTree(root, { overlay: false, maps: builds.roots.maps })),
      );
    else await sendBytes(parts, archiveOf(builds, parts));
  });
}

const metadataOf = ({ output }: ExportParts): Record<string, string> => ({
  'buildkit-attachable-exporter-id': String(output.index),
});

async function sendRoot(builds: Builds, parts: ExportParts, root: string): Promise<void> {
  const call = parts.session.client.call(PATH, metadataOf(parts), parts.signal);
  try {
    await sendFolder(call, root, builds.roots.maps);
  } finally {
    call.cancel();
  }
}

/** The image as `docker save` would give it, under the names of the output. */
async function* archiveOf(builds: Builds, { imageId, output }: ExportParts): AsyncGenerator<Buffer> {
  const { library } = builds.images;
  const names = (output.options.get('name') ?? '').split(',').filter((name) => name !== '');
  const image = {
    id: imageId,
    configBytes: await library.parts.content.read(imageId),
    config: library.configOf(imageId),
    layers: library.layersOf(imageId),
    names,
  };
  yield* saveArchive([image], (layer) => library.layerTar(layer));
}

async function sendBytes(
  parts: ExportParts,
  chunks: Iterable<Buffer> | AsyncIterable<Buffer>,
): Promise<void> {
  const call = parts.session.client.call(PATH, metadataOf(parts), parts.signal);
  try {
    for await (const chunk of Readable.from(chunks) as AsyncIterable<Buffer>)
      for (let at = 0; at < chunk.length; at += CHUNK_BYTES)
        await call.send(BytesMessage.encode({ data: chunk.subarray(at, at + CHUNK_BYTES) }));
    call.end();
    // The client answers when it has written everything, or that it could not.
    for await (const _ of call.messages());
  } finally {
    call.cancel();
  }
}
