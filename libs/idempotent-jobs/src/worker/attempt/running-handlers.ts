import { Injectable } from '@nestjs/common';
import { isOverWithin } from '../../operation/within.js';
import type { HandlerRun } from './handler-run.js';
import type { AbandonedBy } from '../../operation/reasons.js';

/** The handlers that run in this process right now. */
@Injectable()
export class RunningHandlers {
  readonly #runs = new Set<HandlerRun>();
  #onEmpty: (() => void)[] = [];

  /** Adds a run. Returns the function that removes it. */
  add(run: HandlerRun): () => void {
    this.#runs.add(run);
    return () => {
      this.#runs.delete(run);
      if (this.#runs.size > 0) return;
      for (const tell of this.#onEmpty.splice(0)) tell();
    };
  }

  /** How many handlers are running. */
  get size(): number {
    return this.#runs.size;
  }

  /** Waits at most `ms` until no handler is running. Whether that is so then. */
  async isEmptyWithin(ms: number): Promise<boolean> {
    if (this.#runs.size === 0) return true;
    return isOverWithin(ms, new Promise<void>((resolve) => this.#onEmpty.push(resolve)));
  }

  abandonAll(by: AbandonedBy): void {
    for (const run of this.#runs) run.abandon(by);
  }
}
