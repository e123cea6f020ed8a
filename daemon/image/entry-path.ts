/**
 * Names in archives, made safe. A name becomes a list of plain components below the root; one that would lead out is
 * refused. Symlinks are not looked at here: the kernel resolves them inside the root (see common/native/layer-fs.ts).
 */
import type { ByteString } from '#common/native/layer-fs';
import { badArchive } from './tar/reader.ts';

/** linux/limits.h PATH_MAX and NAME_MAX. */
const PATH_BYTES_MAX = 4096;
const NAME_BYTES_MAX = 255;

/** How a name is shown to people: as UTF-8, with control characters escaped. */
export function printable(name: ByteString): string {
  return JSON.stringify(Buffer.from(name, 'latin1').toString('utf8'));
}

/**
 * The components of an entry's name. Leading slashes are dropped (an absolute name means the root of the archive, as
 * in tar(1) and docker), `.` too, and `..` takes the component before it away.
 * @returns an empty list for the root itself.
 * @throws DrydockError ERR_BAD_ARCHIVE when `..` leads above the root, or a name is too long.
 */
export function entryComponents(name: ByteString): ByteString[] {
  if (name.length > PATH_BYTES_MAX) throw badArchive(`a name has ${name.length} bytes`);
  const components: ByteString[] = [];
  for (const component of name.split('/')) {
    if (component === '' || component === '.') continue;
    if (component === '..') {
      if (components.pop() === undefined)
        throw badArchive(`the name ${printable(name)} leads out of the archive's root`);
      continue;
    }
    if (component.length > NAME_BYTES_MAX) throw badArchive(`a name has a part of ${component.length} bytes`);
    components.push(component);
  }
  return components;
}
