import { Injectable, Logger, Optional } from '@nestjs/common';
import { messageOf } from '../operation/thrown.js';
import { printable } from './printable.js';

/**
 * What the library logs besides events. One instance per application. Quoted values are shown on one line, with invisible
 * characters escaped.
 */
@Injectable()
export class LibraryLog {
  readonly #repeats = new Repeats((line) => this.warn(line));

  constructor(
    @Optional() private readonly logger: Pick<Logger, 'warn' | 'error'> = new Logger('IdempotentJobs'),
  ) {}

  warn(message: string): void {
    this.logger.warn(printable(message));
  }

  error(message: string): void {
    this.logger.error(printable(message));
  }

  /** Logs a failure that will be retried. Repeats of the same message are logged now and then, with their number. */
  readonly trouble = (message: string, error?: unknown): void =>
    this.#repeats.say(error === undefined ? message : `${message}: ${messageOf(error)}`);

  /** Writes the repeats that are still held back. */
  flush(): void {
    this.#repeats.flush();
  }
}

/** The latest message of a kind, and how often it came since the last written line. */
interface Repeated {
  count: number;
  latest: string;
  periodMs: number;
  timer: NodeJS.Timeout;
}

/**
 * Writes the first message of a kind at once, and those that follow as one line with their number: after ten seconds, and
 * then after twice as long each time, up to a minute. A server that is away for an hour makes some sixty lines, however
 * often a second it is tried. Messages that differ only in numbers and ids are of one kind; quoted text, such as the name
 * of a queue, distinguishes kinds.
 */
export class Repeats {
  readonly #kinds = new Map<string, Repeated>();

  constructor(private readonly write: (line: string) => void) {}

  say(line: string): void {
    const kind = this.#kindOf(line);
    const known = this.#kinds.get(kind);
    if (known === undefined) {
      this.write(line);
      this.#kinds.set(kind, {
        count: 0,
        latest: line,
        periodMs: FIRST_MS,
        timer: this.#later(kind, FIRST_MS),
      });
      return;
    }
    known.count += 1;
    known.latest = line;
  }

  /** Writes the repeats that are still held back. Later messages begin anew. */
  flush(): void {
    for (const [kind, repeated] of this.#kinds) {
      clearTimeout(repeated.timer);
      this.#writeHeldBack(repeated);
      this.#kinds.delete(kind);
    }
  }

  /** When there are too many kinds of messages, all further ones share one kind. */
  #kindOf(line: string): string {
    const kind = line.slice(0, MAX_KIND_LENGTH).replace(IDS, (id) => (id.startsWith('"') ? id : '?'));
    return this.#kinds.has(kind) || this.#kinds.size < MAX_KINDS ? kind : OTHERS;
  }

  #later(kind: string, ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#endPeriod(kind), ms).unref();
  }

  #endPeriod(kind: string): void {
    const repeated = this.#kinds.get(kind);
    if (repeated === undefined) return;
    if (repeated.count === 0) {
      this.#kinds.delete(kind);
      return;
    }
    this.#writeHeldBack(repeated);
    repeated.count = 0;
    repeated.periodMs = Math.min(repeated.periodMs * 2, MAX_MS);
    repeated.timer = this.#later(kind, repeated.periodMs);
  }

  #writeHeldBack({ count, latest, periodMs }: Repeated): void {
    if (count > 0) this.write(`${latest} (${count} of these within ${periodMs / 1000} s)`);
  }
}

const FIRST_MS = 10_000;
const MAX_MS = 60_000;
const MAX_KINDS = 100;
const MAX_KIND_LENGTH = 500;
const OTHERS = 'others';
/** Quoted text, our own job ids, hexadecimal ids such as UUIDs and digests, and numbers. */
const IDS = /"[^"]*"|\bop-[\w-]{43}|\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b|\d+/gi;
