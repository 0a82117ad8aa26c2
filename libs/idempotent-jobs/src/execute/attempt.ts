import { InDoubtError } from '../resilience/failure.js';

/** Why the library stopped waiting for a handler. */
export type AbandonReason = 'timeout' | 'lease_lost' | 'lock_lost' | 'cancelled' | 'shutdown';

/** How a handler ended. */
export type Execution =
  | { readonly kind: 'returned'; readonly value: unknown }
  | { readonly kind: 'threw'; readonly error: unknown }
  | { readonly kind: 'abandoned'; readonly why: AbandonReason; readonly error: InDoubtError };

/**
 * One run of a handler. It ends exactly once: with the handler, or by being abandoned, whichever comes first. An
 * abandoned handler is told through its signal and no longer waited for; whatever it does later is discarded.
 */
export class Attempt {
  readonly #controller = new AbortController();
  readonly #abandoned: Promise<Execution>;
  #resolveAbandoned!: (execution: Execution) => void;
  #isOver = false;

  constructor(private readonly onLate: (how: 'returned' | 'threw') => void) {
    this.#abandoned = new Promise((resolve) => (this.#resolveAbandoned = resolve));
  }

  /** Aborted when nobody waits for the handler any more. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether the attempt has ended, so that nothing may be added to it. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Stops waiting. Later calls, and calls after the handler's end, do nothing. */
  abandon(why: AbandonReason, detail?: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const error = new InDoubtError(`The attempt was abandoned: ${detail ?? EXPLANATIONS[why]}.`);
    this.#controller.abort(error);
    this.#resolveAbandoned({ kind: 'abandoned', why, error });
  }

  /** Runs the handler for at most `timeoutMs`. Never rejects. */
  async run(handler: () => Promise<unknown>, timeoutMs: number): Promise<Execution> {
    if (this.#isOver) return this.#abandoned;
    const timer = setTimeout(
      () => this.abandon('timeout', `it took longer than its ${Math.round(timeoutMs)} ms`),
      timeoutMs,
    );
    try {
      return await Promise.race([this.#finish(handler), this.#abandoned]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #finish(handler: () => Promise<unknown>): Promise<Execution> {
    try {
      const value = await handler();
      if (this.#isOver) this.onLate('returned');
      this.#isOver = true;
      return { kind: 'returned', value };
    } catch (error) {
      if (this.#isOver) this.onLate('threw');
      this.#isOver = true;
      return { kind: 'threw', error };
    }
  }
}

const EXPLANATIONS: Readonly<Record<AbandonReason, string>> = {
  timeout: 'it took too long',
  lease_lost: 'its lease went to another worker or could not be renewed',
  lock_lost: 'its BullMQ lock could not be renewed',
  cancelled: 'its job was cancelled',
  shutdown: 'the application is shutting down',
};
