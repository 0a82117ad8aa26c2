/**
 * Bounds how many calls to one dependency run at the same time in this process. Nobody waits inside: a call that finds
 * no room is turned away and deferred by its caller, so that a slow dependency holds a bounded share of the workers.
 */
export class Bulkhead {
  #active = 0;

  /** @param maxConcurrent how many calls may run at once, from 1 */
  constructor(readonly maxConcurrent: number) {}

  /** How many calls are running. */
  get active(): number {
    return this.#active;
  }

  /** The way to give the place back, which works once; undefined: there is no room. */
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
