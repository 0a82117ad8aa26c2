/**
 * Limits how many calls to one dependency run at the same time in this process. No call waits inside: a call that finds
 * no room is rejected, and its caller defers it, so that a slow dependency takes a limited share of the workers.
 */
export class Bulkhead {
  #active = 0;

  /** @param maxConcurrent how many calls may run at once, from 1 */
  constructor(readonly maxConcurrent: number) {}

  /** How many calls are running. */
  get active(): number {
    return this.#active;
  }

  /** Returns a function that gives the place back, which works once. Undefined when there is no room. */
  tryAcquire(): (() => void) | undefined {
    if (this.#active >= this.maxConcurrent) return undefined;
    this.#active += 1;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#active -= 1;
    };
  }
}
