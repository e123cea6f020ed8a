/** Sessions: connections on which the daemon calls back into its client for files and credentials (`POST /session`). */
import type { Duplex } from 'node:stream';
import { DrydockError } from '#common/errors';
import { DEFAULT_DOMAIN } from '../../image/reference.ts';
import type { Credentials } from '../../image/registry/auth.ts';
import { GrpcClient } from './grpc.ts';
import { CredentialsRequest, CredentialsResponse } from './messages.ts';

/** The client opens its session beside its build: whichever comes first waits this long for the other. */
const MEETING_MS_MAX = 5_000;
/** The client's login to Docker Hub is asked for by this host (buildkit, session/auth/authprovider). */
const HUB_HOST = 'registry-1.docker.io';

/** One client. */
export interface Session {
  client: GrpcClient;
  /** `/package.service/method`, in small letters. */
  methods: ReadonlySet<string>;
}

/** All sessions that are open. */
export class Sessions {
  readonly #open = new Map<string, Session>();
  readonly #waiting = new Set<() => void>();

  /**
   * Takes a connection over. It counts once the client serves it: one that hears of its build's failure before never ends.
   * @param methods what the client offers, `/package.Service/Method`
   */
  add(id: string, methods: readonly string[], socket: Duplex): void {
    const client = new GrpcClient(socket);
    const session = { client, methods: new Set(methods.map((method) => method.toLowerCase())) };
    this.#open.get(id)?.client.close();
    client.onServed(() => {
      this.#open.set(id, session);
      for (const wake of this.#waiting) wake();
    });
    client.onClose(() => {
      if (this.#open.get(id) === session) this.#open.delete(id);
    });
  }

  /** The session with this id, which may be about to come. @throws ERR_SESSION */
  async get(id: string, signal: AbortSignal): Promise<Session> {
    const patience = AbortSignal.any([signal, AbortSignal.timeout(MEETING_MS_MAX)]);
    for (;;) {
      const session = this.#open.get(id);
      if (session) return session;
      await new Promise<void>((resolve, reject) => {
        const settle = (): void => {
          this.#waiting.delete(settle);
          patience.removeEventListener('abort', settle);
          if (patience.aborted) reject(new DrydockError('ERR_SESSION', `no active session for ${id}`));
          else resolve();
        };
        this.#waiting.add(settle);
        patience.addEventListener('abort', settle);
        if (patience.aborted) settle();
      });
    }
  }
}

/** The client's login at a registry, if it has one. */
export async function credentialsOfSession(
  { client, methods }: Session,
  domain: string,
  signal: AbortSignal,
): Promise<Credentials | undefined> {
  const path = '/moby.filesync.v1.Auth/Credentials';
  if (!methods.has(path.toLowerCase())) return undefined;
  const Host = domain === DEFAULT_DOMAIN ? HUB_HOST : domain;
  const answer = await client.unary(path, CredentialsRequest.encode({ Host }), signal);
  const { Username, Secret } = CredentialsResponse.decode(answer);
  if (Secret === '') return undefined;
  return Username === '' ? { identityToken: Secret } : { username: Username, password: Secret };
}
