/**
 * What is to be done after a change on the host, so that the container learns of it: first what the kernel remembers
 * is dropped, then the change is made once more, through a private way into the mount, where the server answers from
 * what is already so. The kernel raises the inotify events of that, exactly those of a change by a neighbour.
 * (A notification of the protocol drops caches but raises no event.)
 */

export type Action =
  | { do: 'dropInode'; node: number }
  | { do: 'dropEntry'; parent: number; name: string }
  | { do: 'dropAll' }
  /** Truncate to the size it has: MODIFY. */
  | { do: 'modify'; path: string; size: number }
  /** Set the mode it has: ATTRIB. */
  | { do: 'attrib'; path: string; mode: number }
  /** Make what is there, of its type (S_IFMT): CREATE. */
  | { do: 'create'; path: string; type: number }
  /** Remove what is gone: DELETE. */
  | { do: 'delete'; path: string; dir: boolean }
  /** Rename what is renamed: MOVED_FROM and MOVED_TO. */
  | { do: 'move'; from: string; to: string };
