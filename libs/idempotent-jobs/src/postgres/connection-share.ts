/**
 * How many connections of the application's pool handler transactions may hold at once: all but a few, which stay free
 * for everything else that the application does. Without a share, handlers that hold one connection and need a second one
 * would wait for each other.
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

/** Enough for a handler's own look beside its transaction, and for a request. */
const RESERVED = 4;
