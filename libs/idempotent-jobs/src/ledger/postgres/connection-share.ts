/**
 * Limits how many connections of the application's pool handler transactions may hold at once: all but a few, which stay
 * free for everything else that the application does. Otherwise handlers that hold one connection and need a second one
 * would wait for each other.
 */
export class ConnectionShare {
  #free: number;
  readonly #waiting = new Set<() => void>();

  constructor(poolSize: number) {
    this.#free = Math.max(1, poolSize - RESERVED);
  }

  /**
   * Waits for a connection's turn. Returns a function that gives it back, or undefined when the turn has not come within
   * `patienceMs` or before the signal is aborted. `signalOf` is called only when it has to wait.
   */
  async take(patienceMs: number, signalOf?: () => AbortSignal): Promise<(() => void) | undefined> {
    if (this.#free > 0) this.#free -= 1;
    else if (!(await this.#turn(patienceMs, signalOf?.()))) return undefined;
    let isGivenBack = false;
    return () => {
      if (isGivenBack) return;
      isGivenBack = true;
      const [next] = this.#waiting;
      if (next === undefined) this.#free += 1;
      else next();
    };
  }

  #turn(patienceMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (isMine: boolean): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', giveUp);
        this.#waiting.delete(go);
        resolve(isMine);
      };
      const go = (): void => end(true);
      const giveUp = (): void => end(false);
      const timer = setTimeout(giveUp, patienceMs);
      this.#waiting.add(go);
      signal?.addEventListener('abort', giveUp);
      if (signal?.aborted === true) giveUp();
    });
  }
}

/** Enough for a handler's own query beside its transaction, and for a request. */
const RESERVED = 4;
