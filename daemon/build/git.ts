/**
 * Sources in git: `URL#ref:folder` as a context or for ADD (docs.docker.com/build/concepts/context, "Git repositories"),
 * fetched by the host's git. Its configuration of the host, hooks and other transports than these are off: a repository
 * can't make it run or read anything here.
 */
import { execFile } from 'node:child_process';
import { mkdir, rm, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { DrydockError, errorCode, errorMessage } from '#common/errors';
import { resolveInRoot } from '../mounts/rootpath.ts';

const run = promisify(execFile);

/** A state of a repository, and a folder in it. */
export interface GitSource {
  url: string;
  /** A branch, tag or commit; empty for the repository's own choice. */
  ref: string;
  subfolder: string;
}

const OUTPUT_BYTES_MAX = 1 << 20;

/** Reads a URL that names a repository; undefined for one that does not. @throws ERR_BUILD for ssh, which is not supported */
export function parseGitUrl(text: string): GitSource | undefined {
  const [address = '', fragment = ''] = text.split(/#(.*)/s);
  if (/^(ssh:\/\/|git@[\w.-]+:)/.test(address))
    throw new DrydockError(
      'ERR_BUILD',
      `${address}: repositories by ssh can't be fetched. Use https, or clone it first`,
    );
  const isGit =
    /^git:\/\//.test(address) || /^https?:\/\/.+\.git$/.test(address) || /^github\.com\//.test(address);
  if (!isGit) return undefined;
  const colon = fragment.indexOf(':');
  const ref = colon < 0 ? fragment : fragment.slice(0, colon);
  if (ref.startsWith('-'))
    throw new DrydockError('ERR_BUILD', `invalid git reference ${JSON.stringify(ref)}`);
  const url = address.startsWith('github.com/') ? `https://${address}` : address;
  return { url, ref, subfolder: colon < 0 ? '' : fragment.slice(colon + 1) };
}

/** Fetches into a new folder. Returns the path of the tree that is wanted. @throws ERR_BUILD */
export async function fetchGit(
  { url, ref, subfolder }: GitSource,
  folder: string,
  { keepGitDir, signal, token }: { keepGitDir: boolean; signal: AbortSignal; token?: string },
): Promise<string> {
  await mkdir(folder, { recursive: true });
  const git = async (...args: string[]): Promise<void> => {
    const options = { cwd: folder, env: environment(token), signal, maxBuffer: OUTPUT_BYTES_MAX };
    await run('git', ['-c', 'core.hooksPath=/dev/null', ...args], options).catch((error) => {
      signal.throwIfAborted();
      if (errorCode(error) === 'ENOENT')
        throw new DrydockError('ERR_BUILD', 'git is not installed, which this source needs');
      const said = String((error as { stderr?: string }).stderr || errorMessage(error)).trim();
      throw new DrydockError('ERR_BUILD', `failed to fetch remote ${url}: ${said}`);
    });
  };
  await git('init', '--quiet');
  await git('remote', 'add', 'origin', url);
  const wanted = ref === '' ? 'HEAD' : ref;
  try {
    await git('fetch', '--quiet', '--depth=1', 'origin', wanted);
    await git('checkout', '--quiet', '--detach', 'FETCH_HEAD');
  } catch {
    signal.throwIfAborted();
    // A server that gives no single commits, or a commit by the first of its digits.
    await git('fetch', '--quiet', '--tags', 'origin', '+refs/heads/*:refs/remotes/origin/*');
    if (ref === '') await git('remote', 'set-head', 'origin', '--auto');
    await git('checkout', '--quiet', '--detach', `origin/${wanted}`).catch(() =>
      git('checkout', '--quiet', '--detach', wanted),
    );
  }
  await git('submodule', '--quiet', 'update', '--init', '--recursive', '--depth=1');
  const tree = await resolveInRoot(folder, subfolder);
  if (!(await stat(tree).catch(() => undefined))?.isDirectory())
    throw new DrydockError('ERR_BUILD', `subdir ${subfolder} not found in ${url}`);
  if (!keepGitDir) await rm(`${folder}/.git`, { recursive: true, force: true });
  return tree;
}

/** git's environment: nothing of this process's but the way to programs and proxies. */
function environment(token: string | undefined): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => /^(PATH|.*_PROXY)$/i.test(name));
  const basic = token === undefined ? undefined : Buffer.from(`x-access-token:${token}`).toString('base64');
  return {
    ...Object.fromEntries(kept),
    HOME: '/nonexistent',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_TERMINAL_PROMPT: '0',
    GIT_ALLOW_PROTOCOL: 'http:https:git',
    // By the environment: an argument would be seen by everybody on the machine.
    ...(basic !== undefined && {
      GIT_CONFIG_COUNT: '1',
      GIT_CONFIG_KEY_0: 'http.extraHeader',
      GIT_CONFIG_VALUE_0: `Authorization: Basic ${basic}`,
    }),
  };
}
