/**
 * Who we are to a registry. A registry that wants to know answers 401 with a challenge: Basic, or Bearer with a realm
 * that gives tokens for a scope. distribution, docs/spec/auth/token.md and oauth.md; RFC 9110 section 11.6.1.
 */
import { DrydockError } from '#common/errors';
import { readBody, type Transport } from './transport.ts';

/** What `docker login` keeps, as in the X-Registry-Auth header. */
export interface Credentials {
  username?: string;
  password?: string;
  /** A refresh token, of registries that gave one. */
  identityToken?: string;
  /** A bearer token, to be used as it is. */
  registryToken?: string;
}

/** A challenge of WWW-Authenticate: scheme in lower case. */
export interface Challenge {
  scheme: string;
  params: Record<string, string>;
}

const TOKEN_BYTES_MAX = 1 << 20;
const HEADER_LENGTH_MAX = 8192;

/** Parses the X-Registry-Auth header (base64url JSON); undefined when it is absent or says nothing. */
export function parseAuthHeader(header: string | string[] | undefined): Credentials | undefined {
  if (typeof header !== 'string' || header === '') return undefined;
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(Buffer.from(header, 'base64').toString('utf8')) as Record<string, unknown>;
  } catch {
    throw new DrydockError(
      'ERR_BAD_PARAMETER',
      'invalid X-Registry-Auth header: it is not base64url of JSON',
    );
  }
  return credentialsOf(value ?? {});
}

/** The credentials of docker's AuthConfig object; undefined when it has none. */
export function credentialsOf(value: Record<string, unknown>): Credentials | undefined {
  const credentials: Credentials = {};
  const take = (from: string, to: keyof Credentials): void => {
    const field = value[from];
    if (typeof field === 'string' && field !== '') credentials[to] = field;
  };
  take('username', 'username');
  take('password', 'password');
  take('identitytoken', 'identityToken');
  take('registrytoken', 'registryToken');
  if (credentials.username === undefined && typeof value.auth === 'string' && value.auth !== '') {
    const [username, ...rest] = Buffer.from(value.auth, 'base64').toString('utf8').split(':');
    if (username) Object.assign(credentials, { username, password: rest.join(':') });
  }
  return Object.keys(credentials).length > 0 ? credentials : undefined;
}

/** Parses a WWW-Authenticate header, which may hold several challenges. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: Challenge[] = [];
  const token = /\s*,?\s*([A-Za-z0-9_-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?/y;
  const text = header.slice(0, HEADER_LENGTH_MAX);
  for (let match = token.exec(text); match; match = token.exec(text)) {
    const [, name, quoted, plain] = match as unknown as [string, string, string?, string?];
    const value = quoted?.replace(/\\(.)/g, '$1') ?? plain;
    if (value === undefined) challenges.push({ scheme: name.toLowerCase(), params: {} });
    else if (challenges.length > 0) challenges.at(-1)!.params[name.toLowerCase()] = value;
  }
  return challenges;
}

/** The value of an Authorization header for Basic. */
export function basic({ username = '', password = '' }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** Answers a challenge: the Authorization header for these scopes, or undefined when there is nothing to answer with. */
export async function answerChallenge(
  transport: Transport,
  { from, challenges }: { from: URL; challenges: readonly Challenge[] },
  credentials: Credentials | undefined,
  scopes: readonly string[],
): Promise<string | undefined> {
  if (credentials?.registryToken !== undefined) return `Bearer ${credentials.registryToken}`;
  const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
  if (bearer) return `Bearer ${await fetchToken(transport, from, bearer, credentials, scopes)}`;
  const wantsBasic = challenges.some(({ scheme }) => scheme === 'basic');
  return wantsBasic && credentials?.username !== undefined ? basic(credentials) : undefined;
}

async function fetchToken(
  transport: Transport,
  from: URL,
  { params }: Challenge,
  credentials: Credentials | undefined,
  scopes: readonly string[],
): Promise<string> {
  const realm = URL.canParse(params.realm ?? '') ? new URL(params.realm!) : undefined;
  if (realm?.protocol !== 'https:' && realm?.protocol !== 'http:')
    throw new DrydockError(
      'ERR_REGISTRY',
      `the registry names the bad token realm ${JSON.stringify(params.realm)}`,
    );
  // A registry behind TLS does not get a password sent in the clear.
  if (credentials) transport.follow(from, realm.href);
  const query = new URLSearchParams({
    ...(params.service !== undefined && { service: params.service }),
  });
  for (const scope of scopes) query.append('scope', scope);
  const refresh = credentials?.identityToken;
  if (refresh === undefined) {
    if (credentials?.username !== undefined) query.set('account', credentials.username);
    for (const [key, value] of query) realm.searchParams.append(key, value);
  }
  const answer = await transport.send(
    refresh === undefined
      ? {
          method: 'GET',
          url: realm,
          ...(credentials?.username !== undefined && { headers: { Authorization: basic(credentials) } }),
        }
      : {
          method: 'POST',
          url: realm,
          headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
          body: Buffer.from(
            `${query}&client_id=drydock&grant_type=refresh_token&refresh_token=${encodeURIComponent(refresh)}`,
          ),
        },
  );
  const bytes = await readBody(answer, TOKEN_BYTES_MAX);
  if (answer.status === 401 || answer.status === 403)
    throw new DrydockError('ERR_UNAUTHORIZED', 'unauthorized: incorrect username or password');
  const { token, access_token: accessToken } = parseObject(bytes);
  const value = typeof token === 'string' && token !== '' ? token : accessToken;
  if (answer.status !== 200 || typeof value !== 'string')
    throw new DrydockError(
      'ERR_REGISTRY',
      `the token service ${realm.origin} gave no token (status ${answer.status})`,
    );
  return value;
}

/** A JSON object, or an empty one when the bytes are none. */
export function parseObject(bytes: Buffer): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
