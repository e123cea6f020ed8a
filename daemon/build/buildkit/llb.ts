/**
 * BuildKit's graphs (LLB) as far as clients of a Dockerfile send them: one source of files, or the result of another build.
 * Graphs with steps of their own are refused. Pure functions.
 */
import { DrydockError } from '#common/errors';
import { digestOf } from '../../image/content.ts';
import { type Definition, Op } from './control-messages.ts';

/** The scheme of our own results in a graph: what follows is an image's id. */
const RESULT = 'drydock-image://';

/** The source that a graph consists of. */
export interface LlbSource {
  /** `local`, `https`, `docker-image`, ... */
  scheme: string;
  /** What follows the scheme and `://`. */
  rest: string;
  identifier: string;
  attributes: ReadonlyMap<string, string>;
}

/** Finds the source. @throws ERR_NOT_IMPLEMENTED for a graph that is more than one */
export function sourceOf({ def }: Definition): LlbSource {
  const last = def.at(-1);
  const end = last && Op.decode(last);
  const wanted = end?.inputs[0]?.digest;
  const found = def.find((bytes) => digestOf(bytes) === wanted);
  const source = found && Op.decode(found).source;
  if (!source)
    throw new DrydockError(
      'ERR_NOT_IMPLEMENTED',
      'a graph of steps (LLB) can not be run by this daemon: it builds Dockerfiles',
    );
  const { identifier, attrs } = source;
  const [, scheme = '', rest = ''] = /^([a-z-]+):\/\/(.*)$/s.exec(identifier) ?? [];
  return { scheme, rest, identifier, attributes: attrs };
}

/** A graph that stands for an image of ours, for a client to name it in another build. */
export function definitionOfImage(imageId: string): Definition {
  const source = Op.encode({ source: { identifier: `${RESULT}${imageId}`, attrs: new Map() } });
  const end = Op.encode({ inputs: [{ digest: digestOf(source), index: 0 }] });
  const def = [source, end];
  return { def, metadata: new Map(def.map((op) => [digestOf(op), new Uint8Array()])) };
}

/** The image that a graph of {@link definitionOfImage} stands for. */
export function imageOfSource({ identifier }: LlbSource): string | undefined {
  return identifier.startsWith(RESULT) ? identifier.slice(RESULT.length) : undefined;
}
