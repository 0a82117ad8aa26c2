/** A message that was written, and what has come of its kind since. */
interface Repeated {
  count: number;
  latest: string;
  periodMs: number;
  timer: NodeJS.Timeout;
}

/**
 * Writes the first message of a kind at once, and those that follow once in a while, as one line with their number: after
 * ten seconds, and then after twice as long each time, up to a minute. A server that is away for an hour makes sixty lines
 * of it, however often a second it is tried. Messages that differ in numbers and ids alone are of one kind; what stands in
 * quotes, such as the name of a queue, tells kinds apart.
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

  /** Writes what has been held back. What comes later begins anew. */
  flush(): void {
    for (const [kind, repeated] of this.#kinds) {
      clearTimeout(repeated.timer);
      this.#writeHeldBack(repeated);
      this.#kinds.delete(kind);
    }
  }

  /** Whoever makes up messages without end gets one kind for all of them. */
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
/** What stands in quotes; our own job ids; hexadecimal ids such as UUIDs and digests; numbers. */
const IDS = /"[^"]*"|\bop-[\w-]{43}|\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b|\d+/gi;
