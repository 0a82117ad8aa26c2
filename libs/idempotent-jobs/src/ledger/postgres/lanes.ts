/**
 * How urgent a statement is, the most urgent first: renewals of leases, records of how attempts ended, claims, and
 * everything else (producers, dispatch, what people do).
 */
export type Lane = 'lease' | 'record' | 'claim' | 'other';

/** How many of the library's connections each lane leaves free for the more urgent lanes. */
export const LANES: Readonly<Record<Lane, number>> = { lease: 0, record: 1, claim: 2, other: 3 };

/** With fewer connections, the last lane would have none. */
export const MIN_CONNECTIONS = 4;

/**
 * Hands out the places of a pool, so that an urgent user never queues behind less urgent ones: however many producers wait
 * for a row, a renewal, a record and a claim each find a connection.
 */
export class Places<Name extends string> {
  #free: number;
  readonly #waiting: ReadonlyMap<Name, Set<() => void>>;

  /** @param keptFree how many places each lane leaves free for those before it */
  constructor(
    size: number,
    private readonly keptFree: Readonly<Record<Name, number>>,
  ) {
    this.#free = size;
    this.#waiting = new Map(Object.keys(keptFree).map((lane) => [lane as Name, new Set()]));
  }

  /**
   * Waits for a place. Returns a function that gives it back, or undefined when none was free within `patienceMs` or before
   * the signal is aborted. `signalOf` is called only when it has to wait.
   */
  async take(
    lane: Name,
    patienceMs: number,
    signalOf?: () => AbortSignal,
  ): Promise<(() => void) | undefined> {
    const waiting = this.#waiting.get(lane) as Set<() => void>;
    if (this.#free > this.keptFree[lane] && waiting.size === 0) this.#free -= 1;
    else if (!(await turnIn(waiting, patienceMs, signalOf?.()))) return undefined;
    let isGivenBack = false;
    return () => {
      if (isGivenBack) return;
      isGivenBack = true;
      this.#free += 1;
      this.#admit();
    };
  }

  /** Lets in the most urgent user for whom there is a place. */
  #admit(): void {
    for (const [lane, [next]] of this.#waiting) {
      if (next === undefined || this.#free <= this.keptFree[lane]) continue;
      this.#free -= 1;
      next();
      return;
    }
  }
}

/** Waits until its turn has come. False when it has not come in time. */
function turnIn(
  waiting: Set<() => void>,
  patienceMs: number,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (isMine: boolean): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', giveUp);
      waiting.delete(go);
      resolve(isMine);
    };
    const go = (): void => end(true);
    const giveUp = (): void => end(false);
    const timer = setTimeout(giveUp, patienceMs);
    waiting.add(go);
    signal?.addEventListener('abort', giveUp);
    if (signal?.aborted === true) giveUp();
  });
}

/**
 * How many connections of the application's pool handler transactions may hold at once: all but a few, which stay free for
 * everything else that the application does. Otherwise handlers that hold one connection and need a second one would wait
 * for each other.
 */
export function handlerPlaces(poolSize: number): Places<'handler'> {
  return new Places(Math.max(1, poolSize - RESERVED), { handler: 0 });
}

/** Enough for a handler's own query beside its transaction, and for a request. */
const RESERVED = 4;
