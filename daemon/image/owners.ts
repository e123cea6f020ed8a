/**
 * Owners of files in archives and on disk. With users of containers mapped (userns-remap), what an archive gives to
 * uid 0 belongs on disk to the number that the container's root has on this machine, and the other way round.
 *
 * The capabilities of a program hold in the user namespace whose root they name, by its number; those of an archive
 * name none, which means the machine's own (capabilities(7), "Namespaced file capabilities").
 */
import { insideId, outsideId, type UserMaps } from '#common/id-map';
import { isSingleUser } from '#common/user-namespace';
import type { TarHeader } from './tar/header.ts';
import { badArchive } from './tar/reader.ts';

/** Nothing can belong to others than root here (newuidmap is missing, or the user has no numbers). */
const SINGLE_USER = isSingleUser();
const CAPABILITY = 'security.capability';
/** struct vfs_ns_cap_data: the revision in the highest byte of the first word, and at 20 the root's uid. */
const REVISION_AT = 3;
const REVISION_2 = 2;
const REVISION_2_BYTES = 20;
const REVISION_3 = 3;
const REVISION_3_BYTES = 24;

/** The root of containers. */
export const ROOT: Owner = { uid: 0, gid: 0 };

/** Whose something is. */
export interface Owner {
  uid: number;
  gid: number;
}

/** The owner on disk. @throws ERR_BAD_ARCHIVE for one that containers do not have */
export function ownerOnDisk({ uid, gid }: Owner, maps: UserMaps | undefined): Owner {
  if (SINGLE_USER) return ROOT;
  const owner = { uid: outsideId(maps?.uids, uid), gid: outsideId(maps?.gids, gid) };
  if (owner.uid === undefined || owner.gid === undefined)
    throw badArchive(`it has files of ${uid}:${gid}, which is not among the mapped users (userns-remap)`);
  return owner as Owner;
}

/** A header of an archive, with owner and capabilities as on disk. */
export function headerOnDisk(header: TarHeader, maps: UserMaps | undefined): TarHeader {
  if (!maps && !SINGLE_USER) return header;
  const root = ownerOnDisk(ROOT, maps).uid;
  return {
    ...header,
    ...ownerOnDisk(header, maps),
    xattrs: withCapability(header.xattrs, (value) => {
      if (value.length !== REVISION_2_BYTES || value[REVISION_AT] !== REVISION_2) return value;
      const longer = Buffer.alloc(REVISION_3_BYTES);
      longer.set(value);
      longer[REVISION_AT] = REVISION_3;
      longer.writeUInt32LE(root, REVISION_2_BYTES);
      return longer;
    }),
  };
}

/** A header that was made of what is on disk, as containers see it. */
export function headerInside(header: TarHeader, maps: UserMaps | undefined): TarHeader {
  if (!maps) return header;
  return {
    ...header,
    uid: insideId(maps.uids, header.uid),
    gid: insideId(maps.gids, header.gid),
    xattrs: withCapability(header.xattrs, (value) => {
      if (value.length !== REVISION_3_BYTES || value[REVISION_AT] !== REVISION_3) return value;
      if (insideId(maps.uids, Buffer.from(value).readUInt32LE(REVISION_2_BYTES)) !== 0) return value;
      const shorter = Buffer.from(value.subarray(0, REVISION_2_BYTES));
      shorter[REVISION_AT] = REVISION_2;
      return shorter;
    }),
  };
}

function withCapability(
  xattrs: TarHeader['xattrs'],
  change: (value: Uint8Array) => Uint8Array,
): TarHeader['xattrs'] {
  const value = xattrs.get(CAPABILITY);
  return value ? new Map(xattrs).set(CAPABILITY, change(value)) : xattrs;
}
