/**
 * The HTTP side of the daemon: one fastify application for all listeners. It knows versions, errors and bodies; what
 * the endpoints do is in the plugins beside it, one per resource, which get an {@link ApiContext}.
 *
 * The version prefix (`/v1.47/...`) is cut off before routing, so each route exists once; handlers that differ by
 * version ask {@link apiVersion}.
 */

import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { hostOs } from '../image/index.ts';
import { readText } from './bodies.ts';
import { refusePages } from './browsers.ts';
import { callerOf } from './callers.ts';
import type { ApiContext } from './context.ts';
import { answerFor } from './errors.ts';
import { canonicalBody } from './schema.ts';
import { API_MINOR_MAX } from './versions.ts';

/** The routes of one resource. */
export type ApiPlugin = (app: FastifyInstance, context: ApiContext) => void;

const VERSION_PREFIX = /^\/v(\d[\d.]*)(?=\/|\?|$)/;
const versions = new WeakMap<IncomingMessage, string>();

/** The minor number of the API version that the client speaks: 47 for `/v1.47`, the newest without a prefix. */
export function apiVersion(request: FastifyRequest): number {
  const asked = versions.get(request.raw);
  return asked === undefined ? API_MINOR_MAX : Number(asked.split('.')[1] ?? 0);
}

function refusedVersion(asked: string, minorMin: number): string | undefined {
  const [major = 0, minor = 0] = asked.split('.').map(Number);
  if (major > 1 || (major === 1 && minor > API_MINOR_MAX))
    return `client version ${asked} is too new. Maximum supported API version is 1.${API_MINOR_MAX}`;
  if (major < 1 || minor < minorMin)
    return `client version ${asked} is too old. Minimum supported API version is 1.${minorMin}, please upgrade your client to a newer version`;
  return undefined;
}

/** Makes the application. The caller gives it listeners. */
export function createApi(context: ApiContext, plugins: readonly ApiPlugin[]): FastifyInstance {
  const app = fastify({
    return503OnClosing: false,
    // Bodies are checked, never bent into shape.
    ajv: {
      customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, strict: false },
    },
    schemaErrorFormatter(errors) {
      const [first] = errors;
      const where = first?.instancePath.slice(1).replaceAll('/', '.') || 'the body';
      return new DrydockError(
        'ERR_BAD_JSON',
        `invalid JSON: ${where} ${first?.message ?? 'has the wrong type'}`,
      );
    },
    routerOptions: { maxParamLength: 4096 },
    rewriteUrl(request) {
      const url = request.url ?? '/';
      const version = VERSION_PREFIX.exec(url);
      if (!version) return url;
      versions.set(request, version[1]!);
      return url.slice(version[0].length) || '/';
    },
  });
  readBodies(app);
  app.addHook('onRequest', async (request, reply) => {
    void reply.headers({
      'Api-Version': `1.${API_MINOR_MAX}`,
      'Docker-Experimental': 'false',
      Ostype: hostOs(),
      Server: `Drydock/${context.version} (linux)`,
    });
    context.log.debug(
      { method: request.method, url: request.url, ...callerOf(request.raw.socket) },
      'request',
    );
    refusePages(request.raw);
    const asked = versions.get(request.raw);
    const refusal = asked === undefined ? undefined : refusedVersion(asked, context.minorMin);
    if (refusal !== undefined) throw new DrydockError('ERR_BAD_PARAMETER', refusal);
  });
  app.addHook('preValidation', async (request) => {
    const schema = request.routeOptions.schema?.body;
    if (schema) canonicalBody(schema as Record<string, unknown>, request.body);
  });
  // Without fastify's charset: the CLI takes an error's text out of a body only when this is its exact type.
  app.addHook('onSend', async (_request, reply) => {
    if (String(reply.getHeader('content-type') ?? '').startsWith('application/json'))
      void reply.header('content-type', 'application/json');
  });
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ message: 'page not found' }));
  app.setErrorHandler((error, request, reply) => {
    const { status, message } = answerFor(isCutShort(request.raw) ? hungUp() : error);
    // An operating error says all by its text; only a bug needs its stack.
    const known = error instanceof DrydockError || isCutShort(request.raw);
    context.log[status >= 500 ? 'error' : 'debug'](
      {
        method: request.method,
        url: request.url,
        ...callerOf(request.raw.socket),
        status,
        error: known ? message : error,
      },
      'request failed',
    );
    if (status === 304) return reply.code(304).send();
    // The rest of a body that is not read has no end that the next request could begin after.
    if (!request.raw.complete) void reply.header('connection', 'close');
    return reply.code(status).send({ message });
  });
  for (const plugin of plugins) plugin(app, context);
  return app;
}

/** Whether the client went away in the middle of its request: nobody reads the answer, and nothing is wrong here. */
function isCutShort(request: IncomingMessage): boolean {
  return request.errored !== null && errorCode(request.errored) === 'ECONNRESET';
}

function hungUp(): DrydockError {
  return new DrydockError('ERR_BAD_PARAMETER', 'the client hung up before its request was whole');
}

/** What is wrong with a text, in Go's words where clients know those. */
function whyNotJson(text: string): string {
  try {
    JSON.parse(text);
    return 'it has a key that is not allowed';
  } catch (error) {
    const why = errorMessage(error);
    if (/end of JSON input/.test(why) || /in JSON at position (\d+)/.exec(why)?.[1] === String(text.length))
      return 'unexpected EOF';
    return /after JSON/.test(why) ? 'unexpected content after JSON' : why;
  }
}

/** JSON bodies are parsed whole; any other type reaches its handler as the stream that it is (tar archives). */
function readBodies(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', async (request: FastifyRequest, payload: Readable) => {
    const body = await readText(request.raw, payload);
    if (body === '') return undefined;
    return new Promise((resolve, reject) => {
      void parseJson(request, body, (error, value) => {
        if (error) reject(new DrydockError('ERR_BAD_JSON', `invalid JSON: ${whyNotJson(body)}`));
        else resolve(value);
      });
    });
  });
  app.addContentTypeParser('*', (request, payload, done) => {
    const length = request.headers['content-length'];
    done(
      null,
      length === '0' || (length === undefined && !request.headers['transfer-encoding']) ? undefined : payload,
    );
  });
}
