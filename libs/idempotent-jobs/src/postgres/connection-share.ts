/**
 * How many connections of the pool handler transactions may hold at once: all but a few, which stay free for claims,
 * outcomes and lease renewals. Without a share, transactional handlers that fill the pool would keep other processors
 * from renewing their leases, and handlers that need a second connection from ever getting it.
 */
export class ConnectionShare {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(poolSize: number) {
    this.#free = Math.max(1, poolSize - RESERVED);
  }

  /** Waits for a connection's turn; the answer gives it back. */
  async take(): Promise<() => void> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let isGivenBack = false;
    return () => {
      if (isGivenBack) return;
      isGivenBack = true;
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    };
  }
}

/** Enough for claims and completions to make progress, for a renewal and for the dispatcher. */
const RESERVED = 4;
