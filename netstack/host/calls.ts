/**
 * How this thread makes system calls that come several at a time: small frames to TAPs, datagrams from and to sockets. By io_uring
 * where the kernel permits it, chosen when the thread starts.
 */
import { type Calls, openCalls } from '#common/native/calls';

export const calls: Calls = openCalls();
