import type { AbandonedBy } from '../../operation/reasons.js';
import { setMaxListeners } from 'node:events';
import type { LeaseHandle } from '../../ledger/claim/lease-keeper.js';
import { InDoubtError } from '../../operation/failure.js';
import { frames, inFrame } from '../../tenancy/frames.js';

/** The reason of the signal of an attempt that nobody waits for any more. */
export class AbandonedError extends InDoubtError {
  constructor(
    readonly by: AbandonedBy,
    message: string,
  ) {
    super(message);
  }
}

/** How a handler ended. */
export type HandlerResult =
  | { readonly kind: 'returned'; readonly value: unknown }
  | { readonly kind: 'threw'; readonly error: unknown }
  /** `wasStarted`: whether the handler had been called. */
  | {
      readonly kind: 'abandoned';
      readonly by: AbandonedBy;
      readonly error: InDoubtError;
      readonly wasStarted: boolean;
    };

/**
 * One run of a handler. It ends exactly once: with the handler, or by being abandoned, whichever comes first. An
 * abandoned handler is told through its signal and no longer waited for; whatever it does later is discarded.
 */
export class HandlerRun {
  #controller: AbortController | undefined;
  #abandoned: Extract<HandlerResult, { kind: 'abandoned' }> | undefined;
  #end: ((execution: HandlerResult) => void) | undefined;
  #isOver = false;
  #reject: ((error: Error) => void) | undefined;
  #lease: RunLease | undefined;

  /** Whoever ends the attempt may run in anybody's frame; what listens to its signal runs in the attempt's own. */
  readonly #frame = frames.getStore();

  constructor(private readonly onLate: (how: 'returned' | 'threw') => void) {}

  /** Called when the attempt is given up, before its handler hears of it. */
  onAbandoned: (() => void) | undefined;

  /** From here on the attempt is over when its lease is. */
  runUnder(lease: RunLease): void {
    this.#lease = lease;
  }

  /** Aborted when nobody waits for the handler any more. Made when it is first asked for: most handlers never do. */
  get signal(): AbortSignal {
    this.#checkLease();
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      // Any number of steps and calls may run side by side; what listens for each of them goes with it.
      setMaxListeners(0, this.#controller.signal);
      if (this.#abandoned !== undefined) this.#controller.abort(this.#abandoned.error);
    }
    return this.#controller.signal;
  }

  /**
   * Whether the attempt has ended, so that nothing may be added to it. A process that slept past its lease finds out here.
   */
  get isOver(): boolean {
    this.#checkLease();
    return this.#isOver;
  }

  /**
   * Whether anything may be begun under it. Postgres is asked where only the wall's clock says that the lease is over: the
   * machine may have been paused, or somebody has set that clock.
   */
  async mayBegin(): Promise<boolean> {
    if (this.isOver) return false;
    const lease = this.#lease;
    if (lease?.isNearlyOver() === true && !(await lease.confirm())) this.abandon('lease_lost');
    return !this.isOver;
  }

  /** Whether the handler was called. */
  get wasStarted(): boolean {
    return this.#end !== undefined;
  }

  /** Why it was abandoned; undefined: it was not. */
  get abandonedBy(): AbandonedBy | undefined {
    return this.#abandoned?.by;
  }

  /** Stops waiting. Later calls, and calls after the handler's end, do nothing. */
  abandon(by: AbandonedBy, detail?: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onAbandoned?.();
    const error = new AbandonedError(by, `The attempt was abandoned: ${detail ?? EXPLANATIONS[by]}.`);
    this.#abandoned = { kind: 'abandoned', by: by, error, wasStarted: this.wasStarted };
    inFrame(this.#frame, () => this.#controller?.abort(error));
    this.#end?.(this.#abandoned);
    this.#reject?.(error);
  }

  /** Follows `work`, but no longer than until the attempt is abandoned: for guards and interceptors that never answer. */
  follow<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      work.then(resolve, reject);
    });
  }

  /** Runs the handler for at most `timeoutMs`. Never rejects. */
  run(handler: () => Promise<unknown>, timeoutMs: number): Promise<HandlerResult> {
    if (!this.#isOver && this.#lease?.isNearlyOver() === true) this.abandon('lease_lost');
    if (this.#abandoned !== undefined) return Promise.resolve(this.#abandoned);
    return new Promise((resolve) => {
      const timer = setTimeout(
        () => this.abandon('timeout', `it took longer than its ${Math.round(timeoutMs)} ms`),
        timeoutMs,
      );
      this.#end = (execution) => {
        clearTimeout(timer);
        resolve(execution);
      };
      started(handler).then(
        (value) => this.#finish({ kind: 'returned', value }),
        (error: unknown) => this.#finish({ kind: 'threw', error }),
      );
    });
  }

  #checkLease(): void {
    if (!this.#isOver && this.#lease?.hasRunOut() === true) this.abandon('lease_lost');
  }

  #finish(execution: Extract<HandlerResult, { kind: 'returned' | 'threw' }>): void {
    if (this.#isOver) {
      this.onLate(execution.kind);
      return;
    }
    this.#isOver = true;
    this.#end?.(execution);
  }
}

type RunLease = Pick<LeaseHandle, 'isNearlyOver' | 'hasRunOut' | 'confirm'>;

/** A handler that throws before its first await has thrown all the same. */
function started(handler: () => Promise<unknown>): Promise<unknown> {
  try {
    return Promise.resolve(handler());
  } catch (error) {
    return Promise.reject(error);
  }
}

const EXPLANATIONS: Readonly<Record<AbandonedBy, string>> = {
  timeout: 'it took too long',
  lease_lost: 'its lease went to another worker or could not be renewed',
  cancelled: 'its job was cancelled',
  shutdown: 'the application is shutting down',
};
