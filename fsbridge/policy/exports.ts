/** Which folders of the host may be served, as osxfs's list of shared folders. */
import { realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { DrydockError, errorCode } from '#common/errors';

/** Where a path leads once symbolic links are followed, as far as it exists. */
async function leadsTo(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    const above = dirname(path);
    if (errorCode(error) !== 'ENOENT' || above === path) throw error;
    return join(await leadsTo(above), basename(path));
  }
}

/**
 * Checks that a path leads into one of the `exports`, which may be links themselves; with none in the list, all may be
 * served. The path need not exist.
 * @throws ERR_FS_NOT_EXPORTED otherwise
 */
export async function checkExported(path: string, exports: readonly string[]): Promise<void> {
  if (exports.length === 0) return;
  const real = await leadsTo(path);
  for (const each of exports) {
    const folder = await leadsTo(each);
    if (folder === '/' || `${real}/`.startsWith(`${folder}/`)) return;
  }
  const also = real === path ? '' : ` (it leads to ${real})`;
  const text = `Mounts denied: the path ${path}${also} is not shared from the host. Shared are ${exports.join(', ')}.`;
  throw new DrydockError('ERR_FS_NOT_EXPORTED', text);
}
