/**
 * Image references as distribution/reference defines them: what people write (`alpine`, `ghcr.io/a/b:1@sha256:...`)
 * to a normal form (`docker.io/library/alpine`, tag, digest), and back to the familiar one. Pure functions.
 *
 * Grammar: distribution/reference, reference.go:
 *   reference := name [":" tag] ["@" digest];  name := [domain "/"] path-component ("/" path-component)*
 */
import { DrydockError } from '#common/errors';

/** A reference in normal form. */
export interface Reference {
  /** Host and port of the registry. */
  domain: string;
  /** Repository path in the registry (`library/alpine`). */
  path: string;
  tag: string | undefined;
  /** `algorithm:hex`. */
  digest: string | undefined;
}

export const DEFAULT_DOMAIN = 'docker.io';
const OFFICIAL_PREFIX = 'library/';
const LEGACY_DOMAIN = 'index.docker.io';
export const DEFAULT_TAG = 'latest';
/** reference.go: RepositoryNameTotalLengthMax, of domain and path together. */
const NAME_LENGTH_MAX = 255;

const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const DOMAIN_LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const DOMAIN = new RegExp(`^(?:${DOMAIN_LABEL}(?:\\.${DOMAIN_LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const TAG = /^[\w][\w.-]{0,127}$/;
const DIGEST = /^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$/;
const SHA256_HEX = /^[a-f0-9]{64}$/;
/** Digests that we can verify, with the length of their hex form. */
const DIGEST_HEX_LENGTH: Record<string, number> = { sha256: 64, sha384: 96, sha512: 128 };

function invalid(text: string, reason: string): DrydockError {
  return new DrydockError(
    'ERR_BAD_REFERENCE',
    `invalid reference format: ${reason} (${JSON.stringify(text)})`,
  );
}

/** Whether `text` is a digest with a known algorithm and the right length, in lower case. */
export function isDigest(text: string): boolean {
  const colon = text.indexOf(':');
  const length = DIGEST_HEX_LENGTH[text.slice(0, colon)];
  const hex = text.slice(colon + 1);
  return colon > 0 && length === hex.length && /^[a-f0-9]+$/.test(hex);
}

/** The first component is a registry only when it can't be a path: it has a dot, a port, a capital, or is localhost. */
function splitDomain(name: string): { domain: string; path: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isDomain =
    slash > 0 &&
    (/[.:]/.test(first) || first === 'localhost' || first.startsWith('[') || first.toLowerCase() !== first);
  let domain = isDomain ? first : DEFAULT_DOMAIN;
  let path = isDomain ? name.slice(slash + 1) : name;
  if (domain === LEGACY_DOMAIN) domain = DEFAULT_DOMAIN;
  if (domain === DEFAULT_DOMAIN && !path.includes('/')) path = OFFICIAL_PREFIX + path;
  return { domain, path };
}

/**
 * Parses what a person wrote.
 * @throws DrydockError ERR_BAD_REFERENCE, saying which part is wrong.
 */
export function parseReference(text: string): Reference {
  if (text === '') throw invalid(text, 'it is empty');
  if (SHA256_HEX.test(text))
    throw invalid(text, 'invalid repository name, cannot specify 64-byte hexadecimal strings');
  let rest = text;
  let digest: string | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!DIGEST.test(digest) || !isDigest(digest)) throw invalid(text, 'the digest is malformed');
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) throw invalid(text, 'the tag is malformed');
  }
  const { domain, path } = splitDomain(rest);
  if (!DOMAIN.test(domain)) throw invalid(text, 'the registry is malformed');
  if (path !== path.toLowerCase()) throw invalid(text, 'repository name must be lowercase');
  if (!path.split('/').every((component) => PATH_COMPONENT.test(component)))
    throw invalid(text, 'the repository name is malformed');
  if (domain.length + 1 + path.length > NAME_LENGTH_MAX)
    throw invalid(text, `the repository name must not be more than ${NAME_LENGTH_MAX} characters`);
  return { domain, path, tag, digest };
}

/** Whether a text is the name of an image. */
export function isReference(text: string): boolean {
  try {
    parseReference(text);
    return true;
  } catch {
    return false;
  }
}

/** As {@link parseReference}, with the tag `latest` when there is neither tag nor digest. */
export function parseTagged(text: string): Reference {
  const reference = parseReference(text);
  if (reference.tag === undefined && reference.digest === undefined) reference.tag = DEFAULT_TAG;
  return reference;
}

/** The repository in normal form, without tag and digest. */
export function repositoryOf(reference: Reference): string {
  return `${reference.domain}/${reference.path}`;
}

/** The repository as people write it: without docker.io and library. */
export function familiarRepository(reference: Reference): string {
  if (reference.domain !== DEFAULT_DOMAIN) return repositoryOf(reference);
  const short = reference.path.slice(OFFICIAL_PREFIX.length);
  const official = reference.path.startsWith(OFFICIAL_PREFIX) && !short.includes('/');
  return official ? short : reference.path;
}

function suffix(reference: Reference): string {
  return (
    (reference.tag === undefined ? '' : `:${reference.tag}`) +
    (reference.digest === undefined ? '' : `@${reference.digest}`)
  );
}

/** The normal form with tag and digest: the key under which references are stored. */
export function formatNormal(reference: Reference): string {
  return repositoryOf(reference) + suffix(reference);
}

/** The form that docker shows. */
export function formatFamiliar(reference: Reference): string {
  return familiarRepository(reference) + suffix(reference);
}
