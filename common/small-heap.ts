/**
 * To be imported before everything else by the daemon, and by the threads that it starts for files. What streams through
 * it makes little garbage in V8's heap beside large buffers outside of it: a young generation that grows puts off the
 * collection that frees these, and stays as large as it was at the busiest moment.
 *
 * It concerns the whole process, and starting a thread undoes it (V8's Heap::ConfigureHeap): hence the threads.
 */
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--semi-space-growth-factor=1');
