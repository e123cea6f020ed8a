/**
 * The API with requests that nobody should send, several at a time, against a daemon of its own. Requests that have once
 * hurt are in `test/corpus/http-api`, and are sent in each run; `npm run fuzz` sends others for as long as one likes.
 */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { fsck } from '../../daemon/store/fsck.ts';
import { type DaemonAddress, IMAGE, TestDaemon } from '../support/e2e/daemon.ts';
import { litterOf } from '../support/e2e/litter.ts';
import { describeE2e } from '../support/e2e/session.ts';
import { exchange, type FuzzAnswer } from '../support/fuzz/api-exchange.ts';
import { apiRequests, type FuzzRequest } from '../support/fuzz/api-requests.ts';
import { corpusOf, FUZZ_TIMEOUT_MS, fuzzed } from '../support/fuzz/corpus.ts';

const AT_ONCE_MAX = 8;
/** For an answer on a busy machine, and for none from those that wait for an event on purpose. */
const PATIENCE_MS = 20_000;
const PATIENCE_WITH_WAITING_MS = 1000;
/** They wait: for a container's end, for the first line, for the other side of an upgrade or of a body. */
const MAY_BE_SILENT =
  /\/(wait|attach|logs|stats|events|session|grpc|build|load|archive|create|import|start|stop|restart)\b/;
/** Headers by which a request may promise more than it sends. */
const LEAVES_OPEN = /^(content-length|transfer-encoding|upgrade|expect)$/i;
const SECRET = 'nobody is told this';
const NAMES = {
  containers: ['fuzz-up', 'fuzz-down'],
  images: ['fuzz:image'],
  networks: ['fuzz-net'],
  volumes: ['fuzz-vol'],
};

describeE2e('the API, fuzzed', () => {
  let address: DaemonAddress;
  let daemon: TestDaemon;
  let outside: string;
  let read = 0;

  beforeAll(async () => {
    address = TestDaemon.makeAddress();
    outside = join(dirname(address.dataRoot), 'outside');
    mkdirSync(outside);
    writeFileSync(join(outside, 'secret'), SECRET);
    // Whatever a request names, no registry is asked: the way there is closed.
    const closed = 'http://127.0.0.1:1';
    const env = { HTTP_PROXY: closed, HTTPS_PROXY: closed, http_proxy: closed, https_proxy: closed };
    daemon = await TestDaemon.launch(address, ['--shutdown-timeout', '1'], { env });
  });

  afterAll(async () => {
    await daemon.stop();
    expect(litterOf(address)).toEqual([]);
    expect((await fsck(address.dataRoot)).damage.map(({ path, text }) => `${path}: ${text}`)).toEqual([]);
    TestDaemon.forget(address);
  });

  /** Makes what the requests are about, where an earlier one has removed it. */
  const prepare = async (): Promise<void> => {
    await daemon.api('POST', `/images/${IMAGE}/tag?repo=fuzz&tag=image`);
    await daemon.api('POST', '/networks/create', { Name: 'fuzz-net' });
    await daemon.api('POST', '/volumes/create', { Name: 'fuzz-vol' });
    for (const name of NAMES.containers)
      await daemon.api('POST', `/containers/create?name=${name}`, { Image: IMAGE, Cmd: ['sleep', '1000'] });
    await daemon.api('POST', '/containers/fuzz-up/start');
  };

  const mayBeSilent = ({ target, headers }: FuzzRequest): boolean =>
    MAY_BE_SILENT.test(target) || headers.some(([name]) => LEAVES_OPEN.test(name));

  const judge = (request: FuzzRequest, { status, type, body, silent }: FuzzAnswer): void => {
    const asked = `${request.method} ${request.target}`;
    if (silent) expect(mayBeSilent(request), `${asked} got no answer`).toBe(true);
    expect(body, asked).not.toContain(SECRET);
    if (status === undefined || status < 400 || request.method === 'HEAD') return;
    // Node itself answers what is no HTTP at all, without a word.
    if (type === '' && body === '' && status < 500) return;
    expect(type, `${asked}: ${body}`).toBe('application/json');
    expect(JSON.parse(body).message, asked).toMatch(/./);
  };

  it('answers each request with a reason, and lives on', { timeout: FUZZ_TIMEOUT_MS }, async () => {
    await fuzzed(
      corpusOf('http-api'),
      fc.asyncProperty(
        fc.array(apiRequests({ ...NAMES, outside: [join(outside, 'secret')] }), {
          minLength: 1,
          maxLength: AT_ONCE_MAX,
        }),
        async (requests) => {
          await prepare();
          const answers = await Promise.all(
            requests.map((request) =>
              exchange(
                address.socketPath,
                request,
                mayBeSilent(request) ? PATIENCE_WITH_WAITING_MS : PATIENCE_MS,
              ),
            ),
          );
          for (const [n, request] of requests.entries()) judge(request, answers[n]!);
          // What the daemon did not expect itself is in its log with its place in the code.
          const told = daemon.log.slice(read);
          read = daemon.log.length;
          expect(told).not.toMatch(/\bat .+:\d+:\d+\)?/);
          expect((await daemon.api('GET', '/_ping')).status, told).toBe(200);
          expect(readdirSync(outside)).toEqual(['secret']);
          expect(readFileSync(join(outside, 'secret'), 'utf8')).toBe(SECRET);
        },
      ),
      40,
    );
    await daemon.removeAll();
    expect(await daemon.ok(['run', '--rm', IMAGE, 'echo', 'alive'])).toBe('alive');
  });
});
