/**
 * Every parser of the daemon against hostile input: what is right, mutated; what has hurt others; noise. A parser says what is wrong
 * by an error with a code. One that is not in the tables below fails the first test.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DrydockError } from '#common/errors';
import { parseDockerfile } from '../../daemon/build/dockerfile.ts';
import { parseGitUrl } from '../../daemon/build/git.ts';
import { parseMountFlag } from '../../daemon/build/mounts.ts';
import { parseOwner } from '../../daemon/build/sources.ts';
import * as daemonConfig from '../../daemon/config.ts';
import { parseDetachKeys } from '../../daemon/container/attach.ts';
import { parseLink } from '../../daemon/container/links.ts';
import { parseSecurity } from '../../daemon/container/spec.ts';
import { parseDeviceRule } from '../../daemon/container/validate.ts';
import * as changes from '../../daemon/image/changes.ts';
import { emitConfigFile, parseConfigFile, parseDocument } from '../../daemon/image/config-file.ts';
import { parsePlatform } from '../../daemon/image/platform.ts';
import { parseReference, parseTagged } from '../../daemon/image/reference.ts';
import { parseAuthHeader, parseChallenges, parseObject } from '../../daemon/image/registry/auth.ts';
import { parseManifest } from '../../daemon/image/registry/manifest.ts';
import { parseTime } from '../../daemon/image/tar/header.ts';
import { parseMountOptions } from '../../daemon/launch/mount-options.ts';
import { parseGroup, parsePasswd } from '../../daemon/launch/users.ts';
import { parseBind, parseMount } from '../../daemon/mounts/parse.ts';
import { OP, parseQuestion } from '../../daemon/network/dnssd/wire.ts';
import { parseGuestPort } from '../../daemon/network/ports.ts';
import { parseAddress, parseRange, parseSubnet } from '../../daemon/network/subnets.ts';
import { parseRange6, parseSubnet6 } from '../../daemon/network/subnets6.ts';
import { parsePairs } from '../../daemon/runtime/linux/cgroup.ts';
import { parseGroups } from '../../daemon/runtime/linux/cgroup-delegated.ts';
import { parseSeccompProfile } from '../../daemon/runtime/linux/seccomp/profile.ts';
import { damaged, damages } from '../support/fuzz/damage.ts';
import { inputs } from '../support/fuzz/inputs.ts';

const TEXT: Record<string, (text: string) => unknown> = {
  parseAddress,
  parseAuthHeader: (text) => [parseAuthHeader(text), parseAuthHeader(Buffer.from(text).toString('base64'))],
  parseBind,
  parseChallenges,
  parseCommand: (text) => changes.parseCommand(text, {}),
  parseConfigFile: (text) => daemonConfig.parseConfigFile(text),
  parseDetachKeys,
  parseDeviceRule,
  parseDockerfile,
  parseDocument: (text) => parseDocument(Buffer.from(text), 'document'),
  parseDuration: changes.parseDuration,
  parseGitUrl,
  parseGroup,
  parseGroups,
  parseGuestPort,
  parseHealthcheck: changes.parseHealthcheck,
  parseHost: daemonConfig.parseHost,
  parseJsonForm: changes.parseJsonForm,
  parseLink,
  parseMount: (text) => [
    parseMount({ Type: text, Target: '/x' }),
    parseMount({ Type: 'bind', Source: text, Target: text }),
  ],
  parseMountFlag,
  parseMountOptions: (text) => parseMountOptions(text.split(',')),
  parseObject: (text) => parseObject(Buffer.from(text)),
  parseOwner: (text) => parseOwner(text, () => text),
  parsePairs: (text) => [parsePairs(text), changes.parsePairs('ENV', text)],
  parsePasswd,
  parsePlatform,
  parsePorts: changes.parsePorts,
  parseQuestion: (text) =>
    Object.values(OP).flatMap((op) =>
      [false, true].map((shared) =>
        parseQuestion({ op, context: 0n, dataLen: 0 }, Buffer.from(text), shared),
      ),
    ),
  parseRange,
  parseRange6,
  parseReference,
  parseSeccompProfile,
  parseSecurity: (text) => parseSecurity([text]),
  parseSubnet,
  parseSubnet6,
  parseTagged,
  parseTime,
};

/** Documents of JSON, with one of each that is right. */
const JSON_DOCUMENTS: Record<string, [parse: (bytes: Buffer) => unknown, right: object]> = {
  parseConfigFile: [
    // What is taken is given back as it is.
    (bytes) => {
      const file = parseConfigFile(bytes);
      expect(parseConfigFile(emitConfigFile(file))).toEqual(file);
    },
    {
      architecture: 'amd64',
      os: 'linux',
      variant: 'v2',
      author: 'a',
      created: '2024-01-01T00:00:00Z',
      config: {
        User: '1:2',
        Env: ['A=b'],
        Cmd: ['sh'],
        Entrypoint: null,
        ExposedPorts: { '80/tcp': {} },
        Volumes: { '/v': {} },
        Labels: { a: 'b' },
        Healthcheck: { Test: ['CMD', 'true'], Interval: 1 },
        OnBuild: [],
      },
      history: [{ created_by: 'x', empty_layer: true }],
      rootfs: { type: 'layers', diff_ids: [`sha256:${'0'.repeat(64)}`] },
    },
  ],
  parseManifest: [
    (bytes) => parseManifest(bytes, undefined),
    {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: { mediaType: 'x', size: 1, digest: `sha256:${'0'.repeat(64)}` },
      layers: [{ mediaType: 'x', size: 1, digest: `sha256:${'1'.repeat(64)}`, urls: ['http://x'] }],
    },
  ],
  'parseManifest of an index': [
    (bytes) => parseManifest(bytes, undefined),
    {
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [
        {
          mediaType: 'x',
          size: 1,
          digest: `sha256:${'0'.repeat(64)}`,
          platform: { os: 'linux', architecture: 'amd64', variant: 'v1' },
          annotations: { a: 'b' },
        },
      ],
    },
  ],
  parseSeccompProfile: [
    (bytes) => parseSeccompProfile(bytes.toString()),
    {
      defaultAction: 'SCMP_ACT_ERRNO',
      defaultErrnoRet: 1,
      archMap: [{ architecture: 'SCMP_ARCH_X86_64', subArchitectures: ['SCMP_ARCH_X86'] }],
      syscalls: [
        {
          names: ['read'],
          action: 'SCMP_ACT_ALLOW',
          args: [{ index: 0, value: 1, valueTwo: 2, op: 'SCMP_CMP_EQ' }],
          includes: { caps: ['CAP_X'], minKernel: '4.8' },
          excludes: { arches: ['x32'] },
        },
      ],
    },
  ],
};

/** Parsers of bytes have tests of their own beside them, of tars and of ELF; the others read files of the machine. */
const OTHERS = new Set(['parseNumber', 'parseHeader', 'parsePax']);

const HOSTILE = [
  '',
  '\0',
  ' ',
  ':',
  '::',
  '=',
  ',',
  '/',
  '//:',
  '../../x:/y:ro,z',
  'a:b:c:d',
  'FROM scratch\nRUN <<EOF\n',
  '# syntax=x\n# escape=`\nFROM a AS b\nCOPY --from=b --chown=1:2 <<"X" /y\nX\nHEALTHCHECK --interval=1s CMD x',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is the Dockerfile's.
  'ARG a=${b:-${c:+${d}}}\nFROM $a',
  'ENV a="b c" d=e\\\n f',
  '["a", "b"',
  'type=bind,source="a,b",target=/x,ro',
  'type=secret,id=x,env=Y,mode=0777',
  '--interval=9999999999999h CMD x',
  'git@host:a/b.git#ref:dir',
  'https://u:p@host/x.git#:../..',
  'tcp://[::1]:2375',
  'fd://x',
  'ctrl-@,ctrl-p,a',
  'c *:* rwm',
  'Bearer realm="https://x",service="y",scope="z\\"",Basic',
  '10.0.0.0/8',
  '999.1.1.1/33',
  'fd00::/200',
  '127.0.0.1:65536/x/y@sha256:0',
  'linux/arm64/v8/x',
  'seccomp={"defaultAction":"x"}',
  '{"__proto__":{"a":1},"hosts":5}',
  'root:x:0:0:root:/root:/bin/sh\n:::::\nx',
  'size=9999999999999999g,mode=99999',
  '80-99999/tcp',
  '1700000000.999999999999',
];
/** Pieces that are repeated until a parser that recurses or goes back would notice. */
const PIECES = [
  '(',
  '[',
  '{"a":',
  '${a:-',
  '\\',
  '"',
  "'",
  ',',
  '=',
  'a ',
  'FROM x\n',
  '<<E ',
  '../',
  ':',
  '-',
  'a,a=',
];
const REPEATS = 5000;

const texts = fc.oneof(
  fc.constantFrom(...HOSTILE),
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc
    .tuple(fc.constantFrom(...HOSTILE), fc.nat(), fc.nat(4), fc.constantFrom(...PIECES, ...HOSTILE))
    .map(([text, from, removed, piece]) => {
      const at = from % (text.length + 1);
      return text.slice(0, at) + piece + text.slice(at + removed);
    }),
);

/** Runs a parser; an error must have a code and a sentence. */
function tried(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    if (!(error instanceof DrydockError)) throw error;
    expect(error.message).not.toBe('');
  }
}

test('every parser is in the tables', () => {
  const root = join(import.meta.dirname, '../../daemon');
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.endsWith('.ts') && !name.endsWith('.test.ts') && !/^(command|dashboard)\//.test(name),
  );
  const found = files.flatMap((name) =>
    [...readFileSync(join(root, name), 'utf8').matchAll(/^export (?:async )?function (parse\w*)/gm)].map(
      ([, parser]) => parser!,
    ),
  );
  const known = new Set([...Object.keys(TEXT), ...Object.keys(JSON_DOCUMENTS), ...OTHERS]);
  expect(found.filter((parser) => !known.has(parser))).toEqual([]);
});

describe('text', () => {
  test.each(Object.entries(TEXT))('%s says what is wrong, and nothing else', (_, parse) => {
    fc.assert(
      fc.property(texts, (text) => tried(() => parse(text))),
      { numRuns: inputs(200) },
    );
  });

  test.each(Object.entries(TEXT))('%s gets through what repeats itself', (_, parse) => {
    for (const piece of PIECES) tried(() => parse(piece.repeat(REPEATS)));
  });
});

describe('JSON', () => {
  test.each(Object.entries(JSON_DOCUMENTS))(
    '%s says what is wrong, and nothing else',
    (_, [parse, right]) => {
      const text = JSON.stringify(right);
      parse(Buffer.from(text));
      fc.assert(
        fc.property(damages, (damage) => tried(() => parse(Buffer.from(damaged(text, damage))))),
        { numRuns: inputs(300) },
      );
    },
  );
});
