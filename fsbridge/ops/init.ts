/** How a session starts: INIT, after which the kernel behaves as we asked. */
import type { Memory } from '../memory.ts';
import * as E from '../wire/errno.ts';
import * as F from '../wire/layout-linux.ts';
import type { Request } from '../wire/request.ts';
import { BODY, type Server } from './server.ts';

/** Data of one READ or WRITE; the kernel's own limit for pages in a request is 256 of 4 KiB. */
export const WRITE_BYTES_MAX: number = 1 << 20;
const PAGES_MAX = 256;
/** Requests that the kernel queues without waiting (readahead, writeback), and when it calls that congestion. */
const BACKGROUND_MAX = 64;
const CONGESTION = 48;

/**
 * How many file systems may be stacked in all: the host's, and this one above it. One more would forbid overlays on top
 * of a mount (a container that runs containers).
 */
const STACK_DEPTH = 1;

/** What we want of what the kernel offers. */
function wanted(server: Server, offered: bigint): bigint {
  const { consistency } = server.policy;
  let flags =
    F.ASYNC_READ |
    F.POSIX_LOCKS |
    F.FLOCK_LOCKS |
    F.ATOMIC_O_TRUNC |
    F.BIG_WRITES |
    F.AUTO_INVAL_DATA |
    F.ASYNC_DIO |
    F.PARALLEL_DIROPS |
    F.MAX_PAGES |
    F.HANDLE_KILLPRIV_V2 |
    F.INIT_EXT;
  // Where nothing may be kept, attributes that come with a listing are lost work.
  if (consistency !== 'consistent') flags |= F.DO_READDIRPLUS | F.READDIRPLUS_AUTO | F.CACHE_SYMLINKS;
  // The kernel has one or the other. Data that go straight to the host's file need no writing back.
  if (server.backing !== undefined && (offered & F.PASSTHROUGH) !== 0n) flags |= F.PASSTHROUGH;
  else if (consistency === 'delegated') flags |= F.WRITEBACK_CACHE;
  return flags & offered;
}

export function init(server: Server, request: Request, reply: Memory): number {
  const offer = server.layout.decodeInit(request);
  if (offer === undefined || offer.major !== 7) return -E.EIO;
  const flags = wanted(server, offer.flags & server.layout.flags);
  const passthrough = (flags & F.PASSTHROUGH) !== 0n;
  if (!passthrough) server.backing = undefined;
  return server.layout.encodeInit(
    {
      minor: Math.min(offer.minor, server.layout.minor),
      maxReadaheadBytes: offer.maxReadaheadBytes,
      flags,
      maxBackground: BACKGROUND_MAX,
      congestionThreshold: CONGESTION,
      maxWriteBytes: WRITE_BYTES_MAX,
      maxPages: (flags & F.MAX_PAGES) !== 0n ? PAGES_MAX : 0,
      maxStackDepth: passthrough ? STACK_DEPTH : 0,
    },
    reply.words,
    BODY,
  );
}
