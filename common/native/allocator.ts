/** The C library's allocator, for the whole process. */
import { cFunction, type NativeFunction } from './libc.ts';

/** glibc's malloc.h; other C libraries have no such function. */
const M_MMAP_THRESHOLD = -3;
const LARGE_BYTES = 256 << 10;

/**
 * Lets buffers of streams be given back to the system once they are freed. By itself glibc keeps what is as large as
 * anything that was freed before, in a heap of each thread.
 */
export function returnLargeBuffers(): void {
  let mallopt: NativeFunction;
  try {
    mallopt = cFunction('mallopt', 'int', ['int', 'int']);
  } catch {
    return;
  }
  mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
}
