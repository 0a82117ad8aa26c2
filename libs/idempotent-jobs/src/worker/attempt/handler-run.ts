import type { AbandonedBy } from '../../operation/reasons.js';
import { setMaxListeners } from 'node:events';
import type { LeaseHandle } from '../../ledger/claim/lease-keeper.js';
import { InDoubtError } from '../../operation/failure.js';
import { frames, inFrame } from '../../tenancy/frames.js';
import { RunDeadlines } from './run-deadlines.js';

/** The abort reason of an attempt's signal, once the attempt is given up. */
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
 * One run of a handler. It ends exactly once: when the handler ends or when it is abandoned, whichever comes first. An
 * abandoned handler is told through its signal and no longer waited for; what it returns or throws later is discarded.
 */
export class HandlerRun {
  #controller: AbortController | undefined;
  #abandoned: Extract<HandlerResult, { kind: 'abandoned' }> | undefined;
  #end: ((result: HandlerResult) => void) | undefined;
  #isOver = false;
  #reject: ((error: Error) => void) | undefined;
  #lease: RunLease | undefined;

  /** The code that ends the attempt may run in another frame, but listeners of its signal must run in the attempt's own. */
  readonly #frame = frames.getStore();

  constructor(private readonly onLate: (how: 'returned' | 'threw') => void) {}

  /** Called when the attempt is given up, before the handler's signal is aborted. */
  onAbandoned: (() => void) | undefined;

  /** From now on the attempt is over when its lease is. */
  runUnder(lease: RunLease): void {
    this.#lease = lease;
  }

  /** Aborted when the handler is no longer waited for. Made when it is first asked for, since most handlers never do. */
  get signal(): AbortSignal {
    this.#checkLease();
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      // Any number of steps and calls may run side by side, and each listens until it ends: no leak to warn about.
      setMaxListeners(0, this.#controller.signal);
      if (this.#abandoned !== undefined) this.#controller.abort(this.#abandoned.error);
    }
    return this.#controller.signal;
  }

  /**
   * Whether the attempt has ended, so that nothing may be added to it. A process that slept past its lease notices it
   * here.
   */
  get isOver(): boolean {
    this.#checkLease();
    return this.#isOver;
  }

  /**
   * Whether the attempt may begin something. If only the wall clock says that the lease is over, Postgres is asked: the
   * machine may have been paused, or its clock may have been set.
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

  /** Why the attempt was abandoned. Undefined when it was not. */
  get abandonedBy(): AbandonedBy | undefined {
    return this.#abandoned?.by;
  }

  /** Stops waiting for the handler. Does nothing after the handler's end or when it is called again. */
  abandon(by: AbandonedBy, detail?: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onAbandoned?.();
    const error = new AbandonedError(by, `The attempt was abandoned: ${detail ?? EXPLANATIONS[by]}.`);
    this.#abandoned = { kind: 'abandoned', by, error, wasStarted: this.wasStarted };
    inFrame(this.#frame, () => this.#controller?.abort(error));
    deadlines.delete(this);
    this.#end?.(this.#abandoned);
    this.#reject?.(error);
  }

  /**
   * Abandons this run as cancelled when the signal is aborted, or now if it was aborted before. Returns the function that
   * stops listening.
   */
  endWith(signal: AbortSignal | undefined): () => void {
    return onAbort(signal, () => this.abandon('cancelled'));
  }

  /**
   * Abandons this run when the one that it is part of is abandoned, for the same reason, or now if that one is over. A run with
   * a lease of its own has not lost it with the other one's: it is cancelled then, and its lease is released. Returns the
   * function that stops listening.
   */
  endWithRun(outer: HandlerRun, { hasOwnLease }: { readonly hasOwnLease: boolean }): () => void {
    const stop = (): void => {
      const by = outer.abandonedBy ?? 'cancelled';
      this.abandon(by === 'lease_lost' && hasOwnLease ? 'cancelled' : by);
    };
    const forget = onAbort(outer.signal, stop);
    if (outer.isOver) stop();
    return forget;
  }

  /** Settles with `work`, or rejects when the attempt is abandoned: guards and interceptors may never answer. */
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
      this.#end = resolve;
      deadlines.set(this, timeoutMs);
      started(handler).then(
        (value) => this.#finish({ kind: 'returned', value }),
        (error: unknown) => this.#finish({ kind: 'threw', error }),
      );
    });
  }

  #checkLease(): void {
    if (!this.#isOver && this.#lease?.hasRunOut() === true) this.abandon('lease_lost');
  }

  #finish(result: Extract<HandlerResult, { kind: 'returned' | 'threw' }>): void {
    if (this.#isOver) {
      this.onLate(result.kind);
      return;
    }
    this.#isOver = true;
    deadlines.delete(this);
    this.#end?.(result);
  }
}

const deadlines = new RunDeadlines();

type RunLease = Pick<LeaseHandle, 'isNearlyOver' | 'hasRunOut' | 'confirm'>;

/** Calls `stop` when the signal is aborted, or now if it was aborted before. Returns the function that stops listening. */
function onAbort(signal: AbortSignal | undefined, stop: () => void): () => void {
  if (signal?.aborted === true) stop();
  signal?.addEventListener('abort', stop, { once: true });
  return () => signal?.removeEventListener('abort', stop);
}

/** Makes a rejection of what a handler throws before its first await. */
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
