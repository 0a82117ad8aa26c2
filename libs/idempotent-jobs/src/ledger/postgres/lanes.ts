import { NoConnectionError } from './no-connection.js';

/**
 * How urgent a statement is, the most urgent first: renewals of leases, records of how attempts ended, claims, and
 * everything else (producers, dispatch, what people do).
 */
export const LANES = ['lease', 'record', 'claim', 'other'] as const;

/** One of {@link LANES}. */
export type Lane = (typeof LANES)[number];

/** How many connections each lane leaves free for the more urgent lanes. */
const KEPT_FREE: Readonly<Record<Lane, number>> = { lease: 0, record: 1, claim: 2, other: 3 };

/** With fewer connections, the last lane would have none. */
export const MIN_CONNECTIONS = 4;

interface Waiter {
  readonly go: () => void;
}

/**
 * Hands out the places of a small pool so that a renewal of leases never queues behind less urgent statements: however
 * many producers wait for a row, a renewal, a record and a claim each find a connection.
 */
export class Lanes {
  #free: number;
  readonly #waiting: Readonly<Record<Lane, Set<Waiter>>> = {
    lease: new Set(),
    record: new Set(),
    claim: new Set(),
    other: new Set(),
  };

  constructor(size: number) {
    this.#free = size;
  }

  /**
   * Waits for a place. Returns a function that gives it back.
   *
   * @throws NoConnectionError when no place is free within `patienceMs`
   */
  async enter(lane: Lane, patienceMs: number): Promise<() => void> {
    if (this.#free > KEPT_FREE[lane] && this.#waiting[lane].size === 0) this.#free -= 1;
    else await this.#wait(lane, patienceMs);
    let isGivenBack = false;
    return () => {
      if (isGivenBack) return;
      isGivenBack = true;
      this.#free += 1;
      this.#admit();
    };
  }

  #wait(lane: Lane, patienceMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting[lane].delete(waiter);
        reject(
          new NoConnectionError(
            `All of the library's connections that may be used for this are busy, and none was free within ${patienceMs} ms.`,
          ),
        );
      }, patienceMs);
      const waiter: Waiter = {
        go: () => {
          clearTimeout(timer);
          resolve();
        },
      };
      this.#waiting[lane].add(waiter);
    });
  }

  /** Lets in the most urgent waiting statements for which there is a place. */
  #admit(): void {
    for (const lane of LANES) {
      const [next] = this.#waiting[lane];
      if (next === undefined || this.#free <= KEPT_FREE[lane]) continue;
      this.#waiting[lane].delete(next);
      this.#free -= 1;
      next.go();
      return;
    }
  }
}
