/**
 * Owners as osxfs shows them (docker's documentation, "Ownership"): the server works as one user of the host, and
 * whoever asks sees itself as the owner of every file, until somebody changes the owner. That is recorded in an
 * extended attribute of the file, which is shown to all from then on and is itself hidden inside.
 *
 * The attribute is `com.docker.owner`, on Linux with the `user.` before it that unprivileged attributes have there;
 * its value is `uid:gid`. Files that can't carry one (symbolic links, pipes, sockets) keep a changed owner only for as
 * long as the kernel knows them. What was read is kept with the change time it was read at.
 */
import { KEEP_ID } from '../backing/host-fs.ts';
import type { Memory } from '../memory.ts';
import type { Node } from '../node/node.ts';
import type { Server } from '../ops/server.ts';
import * as E from '../wire/errno.ts';
import * as S from '../wire/stat.ts';

/** Its value is at most two ids of ten digits. */
const VALUE_BYTES_MAX = 32;

/** What is known about who owns a node. */
export interface Recorded {
  ctimeSec: number;
  ctimeNs: number;
  /** KEEP_ID: whoever asks. */
  uid: number;
  gid: number;
}

export class Ownership {
  readonly #server: Server;
  readonly #memory: Memory;
  readonly attribute: string;

  /** @param memory at least 64 bytes that the host can read and write. */
  constructor(server: Server, memory: Memory, attribute = 'user.com.docker.owner') {
    this.#server = server;
    this.#memory = memory;
    this.attribute = attribute;
  }

  /** Puts the owner that `uid` and `gid` see into the host's stat, which is of `node` at (dir, name). */
  present(node: Node, dir: number, name: string, uid: number, gid: number): void {
    const { stat } = this.#server.host;
    const recorded = this.#recorded(node, dir, name);
    stat[S.UID] = recorded.uid === KEEP_ID ? uid : recorded.uid;
    stat[S.GID] = recorded.gid === KEEP_ID ? gid : recorded.gid;
  }

  /** Whether who asks makes no difference to the owner shown, so that the kernel may remember it. */
  fixed(node: Node): boolean {
    return node.owner !== undefined && node.owner.uid !== KEEP_ID && node.owner.gid !== KEEP_ID;
  }

  /** Records a new owner; KEEP_ID leaves that half. The host's stat is of the node at (dir, name). */
  change(node: Node, dir: number, name: string, uid: number, gid: number): number {
    const before = this.#recorded(node, dir, name);
    const owner = {
      ...before,
      uid: uid === KEEP_ID ? before.uid : uid,
      gid: gid === KEEP_ID ? before.gid : gid,
    };
    node.owner = owner;
    if (node.type !== S.S_IFREG && node.type !== S.S_IFDIR) return 0;
    const value = `${owner.uid}:${owner.gid}`;
    this.#memory.bytes.write(value, 0, 'latin1');
    const { host } = this.#server;
    const result = host.setXattr(dir, name, this.attribute, this.#memory, 0, value.length, 0);
    if (result < 0) return result;
    // Changing the owner takes set-uid and set-gid from a file.
    const mode = host.stat[S.MODE]! & 0o7777;
    const kept = mode & ~(S.S_ISUID | S.S_ISGID);
    if (node.type === S.S_IFREG && kept !== mode) host.chmod(dir, name, kept);
    node.owner = undefined;
    return 0;
  }

  #recorded(node: Node, dir: number, name: string): Recorded {
    const { stat } = this.#server.host;
    const ctimeSec = stat[S.CTIME]!;
    const ctimeNs = stat[S.CTIME + 2]!;
    const known = node.owner;
    if (known !== undefined && known.ctimeSec === ctimeSec && known.ctimeNs === ctimeNs) return known;
    const recorded: Recorded = { ctimeSec, ctimeNs, uid: KEEP_ID, gid: KEEP_ID };
    if (node.type === S.S_IFREG || node.type === S.S_IFDIR) {
      const { host } = this.#server;
      const size = host.getXattr(dir, name, this.attribute, this.#memory, 0, VALUE_BYTES_MAX);
      const value = size > 0 ? this.#memory.bytes.toString('latin1', 0, size) : '';
      const [, uid, gid] = /^(\d{1,10}):(\d{1,10})$/.exec(value) ?? [];
      if (uid !== undefined) recorded.uid = Number(uid);
      if (gid !== undefined) recorded.gid = Number(gid);
    } else if (known !== undefined) {
      recorded.uid = known.uid;
      recorded.gid = known.gid;
    }
    node.owner = recorded;
    return recorded;
  }

  /** The answer to a request that names the attribute, which isn't there for a container; undefined for others. */
  hides(attribute: string): number | undefined {
    return attribute === this.attribute ? -E.EPERM : undefined;
  }
}
