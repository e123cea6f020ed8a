/** What streams ask of Linux. */
import { pipe, setNonBlocking } from '#common/native/process';
import { setWindowSize, writeSome } from '#common/native/tty';
import type { StreamSystem } from './streams.ts';

export const linuxStreams: StreamSystem = { pipe, setNonBlocking, setWindowSize, writeSome };
