/** Processes of a container that goes on from an earlier daemon, in the place of the launchers that they once were. */
import { closeSync } from 'node:fs';
import type { Clock } from '#common/clock';
import { errorCode } from '#common/errors';
import type { ProcessEnd } from '#common/native/child';
import { pidfdSignal } from '#common/native/process';
import type { ProcessMark, Survival } from '../runtime.ts';
import { linuxStreams } from './stream-system.ts';
import { openPipeStreams, openTerminalStreams, type ProcessStreams } from './streams.ts';
import { Holder, openProcess, Warden } from './warden.ts';

/** What stands for a process that has ended where a pidfd is wanted: every call refuses it. */
const NO_PROCESS = -1;

/** One such process. */
export class Survivor {
  readonly pid: number;
  readonly pidfd: number;
  readonly exited: Promise<ProcessEnd>;
  readonly warden: Warden | undefined;
  readonly holder: Holder | undefined;

  private constructor({ pid, startTime }: ProcessMark, warden?: Warden, holder?: Holder) {
    this.pid = pid;
    this.pidfd = openProcess({ pid, startTime }) ?? NO_PROCESS;
    this.warden = warden;
    this.holder = holder;
    // Without a warden nobody asks how it ended, only whether: see ofProcess().
    this.exited = warden?.ended ?? Promise.resolve({ code: null, signal: 9 });
  }

  /** A container's program; undefined when its warden has gone, and with it all that is known. */
  static find({ main, warden, holder }: Survival): Survivor | undefined {
    const found = Warden.find(warden, main.pid);
    if (!found) return undefined;
    return new Survivor(main, found, holder && Holder.find(holder));
  }

  /** The init of a container, whose end follows from that of the program: nobody waits for it alone. */
  static ofProcess(mark: ProcessMark): Survivor {
    return new Survivor(mark);
  }

  /** The daemon's ends of the standard streams of a container's program, from those who keep them. */
  openStreams(isTerminal: boolean, clock: Clock): ProcessStreams {
    const kept = this.holder?.take();
    if (isTerminal && kept !== undefined) return openTerminalStreams(kept, clock, linuxStreams);
    return openPipeStreams({ stdin: kept, ...this.warden!.takeOutputs() });
  }

  signal(signal: number): void {
    try {
      pidfdSignal(this.pidfd, signal);
    } catch (error) {
      // It has ended, which its warden tells.
      if (!['ESRCH', 'EBADF'].includes(errorCode(error) ?? '')) throw error;
    }
  }

  close(): void {
    if (this.pidfd !== NO_PROCESS) closeSync(this.pidfd);
    this.warden?.process.dismiss();
  }
}
