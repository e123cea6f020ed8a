/** `docker top`: the host's ps, cut down to a container's processes. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { DrydockError, errorMessage } from '#common/errors';
import type { Container } from './container.ts';
import { permit } from './lifecycle.ts';

const run = promisify(execFile);
const PS_OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** The table of GET /containers/ID/top. @throws ERR_CONFLICT when the container does not run, ERR_PS for options that ps refuses, or without a PID column */
export async function processTable(
  container: Container,
  psArgs: string,
): Promise<{ Titles: string[]; Processes: string[][] }> {
  permit('top', container.record.state.status, container.id, container.name);
  const list = await container.jail!.pids();
  const pids = new Set(list);
  const ps = async (args: string[]): Promise<string> =>
    (await run('ps', args, { maxBuffer: PS_OUTPUT_BYTES_MAX })).stdout;
  const args = psArgs.split(/\s+/);
  let text: string;
  try {
    // Without a list ps shows those of the daemon's own session; some options (such as f) go without a list alone.
    text = await ps([...args, `-q${list.join(',')}`]).catch(() => ps(args));
  } catch (error) {
    // Its first line says why.
    const [why = ''] = String((error as { stderr?: string }).stderr ?? '').split('\n');
    throw new DrydockError('ERR_PS', `ps: ${why || errorMessage(error)}`);
  }
  const [head = '', ...lines] = text.split('\n');
  const titles = head.trim().split(/\s+/);
  const pidColumn = titles.indexOf('PID');
  if (pidColumn < 0) throw new DrydockError('ERR_PS', "Couldn't find PID field in ps output");
  const processes = lines
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => pids.has(Number(fields[pidColumn])))
    // The last column is the command and may hold spaces.
    .map((fields) => [...fields.slice(0, titles.length - 1), fields.slice(titles.length - 1).join(' ')]);
  return { Titles: titles, Processes: processes };
}
