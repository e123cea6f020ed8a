/**
 * The Engine API against its descriptions: every endpoint is called, and status, headers and body of each answer are held
 * against what the version that was asked for promises. An endpoint without a call is a failure, and so is a table in
 * docs/reference/api.md that is not what was called (`DRYDOCK_WRITE_DOCS=1` writes it).
 *
 * The descriptions: moby's api/swagger.yaml as Debian packages it (1.41), or all the versions in the folder that
 * DRYDOCK_TEST_SWAGGER names (a clone of moby has them in api/docs); and the models of Docker's own SDK for the newest.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { API_MINOR_MAX } from '../../daemon/api/versions.ts';
import { containerCases } from '../support/contract/cases-containers.ts';
import { imageCases } from '../support/contract/cases-images.ts';
import { networkCases, volumeCases } from '../support/contract/cases-networks.ts';
import { absentCases, systemCases } from '../support/contract/cases-system.ts';
import { ContractClient } from '../support/contract/client.ts';
import { Checker, type Contract } from '../support/contract/contract.ts';
import { DEVIATIONS } from '../support/contract/deviations.ts';
import { sdkContract } from '../support/contract/sdk.ts';
import { swaggerContract } from '../support/contract/swagger.ts';
import { IMAGE } from '../support/e2e/daemon.ts';
import { sharedDocker } from '../support/e2e/session.ts';
import { E2E_NEEDS } from '../support/e2e/shared-daemon.ts';
import { startRegistry, type TestRegistry } from '../support/registry.ts';
import { lacking } from '../support/requirements.ts';

/** Where Debian's golang-github-docker-docker-dev has it. */
const PACKAGED = '/usr/share/gocode/src/github.com/docker/docker/api';
const folder = process.env.DRYDOCK_TEST_SWAGGER ?? PACKAGED;
const DOCS = fileURLToPath(new URL('../../docs/reference/api.md', import.meta.url));

function contracts(): Contract[] {
  const swaggers = readdirSync(folder)
    .filter((name) => /^(swagger|v1\.\d+)\.yaml$/.test(name))
    .map((name) => swaggerContract(join(folder, name)))
    .sort((a, b) => a.minor - b.minor);
  const models = join(dirname(fileURLToPath(import.meta.resolve('@docker/node-sdk'))), '../lib/types');
  return [...swaggers, sdkContract(models, swaggers.at(-1)!, API_MINOR_MAX)];
}

const lacks = lacking(...E2E_NEEDS, 'docker-registry', folder);
const all = lacks ? [] : contracts();

describe.skipIf(lacks)('the Engine API', () => {
  let registry: TestRegistry;
  const seen = new Map<string, Set<number>>();

  beforeAll(async () => {
    registry = await startRegistry();
  });
  afterAll(() => registry.close());

  it.each(all)('1.$minor, described by $source: every endpoint answers as described', async (contract) => {
    const other = contract === all.at(-1) ? all.at(-2) : all.at(-1);
    const { socketPath } = sharedDocker().address;
    const api = new ContractClient(socketPath, new Checker(contract, other), DEVIATIONS);
    await systemCases(api);
    await absentCases(api);
    await volumeCases(api);
    await networkCases(api, IMAGE);
    await containerCases(api, IMAGE);
    await imageCases(api, IMAGE, registry);
    expect(api.faults).toEqual([]);
    expect([...contract.operations.keys()].filter((operation) => !api.seen.has(operation))).toEqual([]);
    for (const [operation, statuses] of api.seen)
      seen.set(operation, new Set([...(seen.get(operation) ?? []), ...statuses]));
  });

  it('docs/reference/api.md has the table of what was called', () => {
    const rows = [...seen].map(([operation, statuses]) => {
      const sorted = [...statuses].sort((a, b) => a - b);
      // What is refused for what the request lacks is there.
      const offered = sorted.some((status) => status <= 400) ? '' : 'not offered';
      return `| \`${operation}\` | ${sorted.join(' ')} | ${offered} |`;
    });
    const table = ['| endpoint | statuses | |', '|---|---|---|', ...rows.sort()].join('\n');
    const parts = /^([\s\S]*<!-- endpoints -->\n)[\s\S]*(\n<!-- end -->[\s\S]*)$/;
    const text = readFileSync(DOCS, 'utf8');
    const wanted = text.replace(parts, (_, before, after) => before + table + after);
    if (process.env.DRYDOCK_WRITE_DOCS === '1') writeFileSync(DOCS, wanted);
    else expect(text).toBe(wanted);
  });
});
