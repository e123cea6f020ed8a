/** One client of the socket of names: bytes and descriptors in, questions and bytes out. No input or output of its own. */
import {
  ERROR,
  emitAnswers,
  emitError,
  HEADER_LEN,
  type Header,
  OP,
  parseHeader,
  parseQuestion,
  type Question,
} from './wire.ts';

/** Questions that one client may have open; more of them are refused. */
export const QUESTIONS_MAX = 64;
/** Descriptors that may have come before the questions that they are for. */
const DESCRIPTORS_MAX = 8;
/** How long a client may keep an answer: names come and go with containers. */
const TTL_S = 5;

/** What comes of a client's bytes. */
export interface Outcome {
  /** To be written to the client, or to the descriptor that it has sent for this, which is then closed. */
  replies: { fd: number | undefined; bytes: Buffer }[];
  questions: Question[];
  /** The client speaks something else: it is to be sent away. */
  broken: boolean;
}

/** See the module's head. */
export class Session {
  #pending: Buffer = Buffer.alloc(0);
  readonly #descriptors: number[] = [];
  readonly #open = new Set<bigint>();

  /** Takes bytes, and descriptors that came with the last of them. */
  receive(bytes: Uint8Array, descriptors: readonly number[]): Outcome {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    this.#descriptors.push(...descriptors);
    const outcome: Outcome = { replies: [], questions: [], broken: false };
    while (this.#pending.length >= HEADER_LEN) {
      const header = parseHeader(this.#pending);
      outcome.broken = !header;
      if (!header) return outcome;
      const end = HEADER_LEN + header.dataLen;
      if (this.#pending.length < end) break;
      this.#take(header, this.#pending.subarray(HEADER_LEN, end), outcome);
      this.#pending = this.#pending.subarray(end);
    }
    outcome.broken = this.#descriptors.length > DESCRIPTORS_MAX;
    return outcome;
  }

  /** Descriptors that are with this client, when it is sent away. */
  abandoned(): number[] {
    return this.#descriptors.splice(0);
  }

  #take(header: Header, data: Buffer, { replies, questions }: Outcome): void {
    const { op, context } = header;
    if (op === OP.cancel) {
      this.#open.delete(context);
      return;
    }
    const fd = this.#descriptors.shift();
    const question = parseQuestion(header, data, fd !== undefined);
    replies.push({ fd, bytes: emitError(this.#verdict(op, question)) });
    if (!question || this.#open.size >= QUESTIONS_MAX) return;
    this.#open.add(context);
    questions.push(question);
  }

  #verdict(op: number, question: Question | undefined): number {
    if (op === OP.connection) return ERROR.none;
    if (op !== OP.query && op !== OP.addressInfo) return ERROR.unsupported;
    return question && this.#open.size < QUESTIONS_MAX ? ERROR.none : ERROR.badParameter;
  }

  /** The bytes that answer a question; none when it was given up meanwhile. */
  answer(question: Question, addresses: readonly string[]): Buffer | undefined {
    return this.#open.has(question.context) ? emitAnswers(question, addresses, TTL_S) : undefined;
  }
}
