import type { IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import { expect, it } from 'vitest';
import { BODIES_BYTES_MAX, JSON_BODY_BYTES_MAX } from '../limits.ts';
import { readText } from './bodies.ts';

const request = { headers: {} } as IncomingMessage;

it('bodies that would be held together beyond the limit are refused until others are through', async () => {
  const open = Array.from({ length: BODIES_BYTES_MAX / JSON_BODY_BYTES_MAX }, () => new PassThrough());
  const read = open.map((stream) => readText(request, stream));
  for (const stream of open) stream.write(Buffer.alloc(JSON_BODY_BYTES_MAX, 'x'));
  // Each has been taken in once its next turn has come.
  await new Promise((resolve) => setImmediate(resolve));
  const refused = new PassThrough();
  refused.end('{}');
  await expect(readText(request, refused)).rejects.toMatchObject({ code: 'ERR_BUSY' });
  for (const stream of open) stream.end();
  expect((await Promise.all(read)).map((text) => text.length)).toEqual(open.map(() => JSON_BODY_BYTES_MAX));
  const taken = new PassThrough();
  taken.end('{}');
  expect(await readText(request, taken)).toBe('{}');
});

it('a body that breaks off holds nothing', async () => {
  for (let n = 0; n < 2 * (BODIES_BYTES_MAX / JSON_BODY_BYTES_MAX); n++) {
    const stream = new PassThrough();
    const read = readText(request, stream);
    stream.write(Buffer.alloc(JSON_BODY_BYTES_MAX - 1, 'x'));
    setImmediate(() => stream.destroy(new Error('gone')));
    await expect(read).rejects.toThrow('gone');
  }
});

it('a body is refused by what is told of it, before it comes', async () => {
  const headers = { 'content-length': String(JSON_BODY_BYTES_MAX + 1) };
  await expect(readText({ headers } as IncomingMessage, new PassThrough())).rejects.toMatchObject({
    code: 'ERR_BODY_TOO_LARGE',
  });
});
