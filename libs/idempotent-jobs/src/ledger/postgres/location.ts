import { isOverWithin } from '../../operation/within.js';
import type { Queryable } from './database.js';

/**
 * Names the database that a connection leads to: the same name however it is addressed, and another one for any other
 * database, server or replica. The server's start time, in microseconds, distinguishes servers without a privilege; a
 * restart gives a server another name.
 */
export async function nameDatabase(connection: Queryable): Promise<string> {
  const { rows } = await connection.query({ text: NAME });
  return (rows[0] as { name: string }).name;
}

const NAME = `
SELECT oid || '@' || EXTRACT(EPOCH FROM pg_postmaster_start_time()) AS name
FROM pg_database
WHERE datname = current_database()`;

/** How long an answer is waited for: the caller holds a transaction open meanwhile. */
const PATIENCE_MS = 1000;

/**
 * For how long another database is remembered as another one. Not for good: while a server is replaced, callers may be led
 * to the new one before the library's own connections are.
 */
const ELSEWHERE_MS = 10_000;

/** Finds out which database something is in, and remembers it. Asks as seldom as it can. */
export class Location {
  #name: string | undefined;
  #asking: Promise<void> | undefined;
  #askedAt = -Infinity;
  /** Whether the last question was answered. */
  #isAnswered = false;
  /** Names of other databases, and until when each is remembered. */
  readonly #elsewhere = new Map<string, number>();

  constructor(private readonly find: () => Promise<string>) {}

  /**
   * Whether it is in the database of that name. Undefined when that cannot be found out now. While no answer comes, only
   * calls within the first second wait for it, and none of them longer than that.
   */
  async is(name: string): Promise<boolean | undefined> {
    if (this.#name === name) return true;
    if ((this.#elsewhere.get(name) ?? -Infinity) > performance.now()) return false;
    // A name that differs from the known one may only mean that the server was restarted.
    await this.#ask();
    if (this.#name === name) return true;
    if (!this.#isAnswered) return undefined;
    if (this.#elsewhere.size >= MAX_ELSEWHERE) this.#elsewhere.clear();
    this.#elsewhere.set(name, performance.now() + ELSEWHERE_MS);
    return false;
  }

  async #ask(): Promise<void> {
    const now = performance.now();
    if (this.#asking === undefined && now - this.#askedAt >= PATIENCE_MS) {
      this.#askedAt = now;
      this.#isAnswered = false;
      this.#asking = this.#answer();
    }
    const left = this.#askedAt + PATIENCE_MS - now;
    if (this.#asking !== undefined && left > 0) await isOverWithin(left, this.#asking);
  }

  /** Never rejects. */
  async #answer(): Promise<void> {
    try {
      const name = await this.find();
      if (name !== this.#name) this.#elsewhere.clear();
      this.#name = name;
      this.#isAnswered = true;
    } catch {
      // The next question may follow when the second is over.
    } finally {
      this.#asking = undefined;
    }
  }
}

/** More databases than a process has transactions on; names that come and go must not pile up. */
const MAX_ELSEWHERE = 100;
