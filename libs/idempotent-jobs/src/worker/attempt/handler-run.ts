import type { AbandonedBy } from '../../operation/reasons.js';
import { setMaxListeners } from 'node:events';
import type { LeaseHandle } from '../../ledger/claim/lease-keeper.js';
import { InDoubtError } from '../../operation/failure.js';
import { frames, inFrame, outsideOfAnyFrame } from '../../tenancy/frames.js';
import { Injectable } from '@nestjs/common';
import { isOverWithin } from '../../operation/within.js';

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
    const stop = (): void => this.abandon('cancelled');
    if (signal?.aborted === true) stop();
    signal?.addEventListener('abort', stop, { once: true });
    return () => signal?.removeEventListener('abort', stop);
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

/**
 * When the time of each run is over. They share one timer, which is set for the first of them: nearly all runs end before
 * their time.
 */
class Deadlines {
  readonly #ends = new Map<HandlerRun, { readonly at: number; readonly timeoutMs: number }>();
  #timer: NodeJS.Timeout | undefined;
  #firesAt = Infinity;

  set(run: HandlerRun, timeoutMs: number): void {
    const at = performance.now() + timeoutMs;
    this.#ends.set(run, { at, timeoutMs });
    if (at < this.#firesAt) this.#arm(at);
  }

  delete(run: HandlerRun): void {
    if (this.#ends.delete(run) && this.#ends.size === 0) this.#disarm();
  }

  /** The timer belongs to none of the runs' tenants. */
  #arm(at: number): void {
    clearTimeout(this.#timer);
    this.#firesAt = at;
    const inMs = Math.min(Math.ceil(at - performance.now()), MAX_TIMER_MS);
    this.#timer = outsideOfAnyFrame(() => setTimeout(() => this.#fire(), inMs));
  }

  #disarm(): void {
    clearTimeout(this.#timer);
    this.#firesAt = Infinity;
  }

  #fire(): void {
    this.#firesAt = Infinity;
    const now = performance.now();
    for (const [run, { at, timeoutMs }] of this.#ends)
      if (at <= now) run.abandon('timeout', `it took longer than its ${Math.round(timeoutMs)} ms`);
    const next = Math.min(...[...this.#ends.values()].map(({ at }) => at));
    if (next < this.#firesAt) this.#arm(next);
  }
}

const deadlines = new Deadlines();

/** The longest time that a timer of Node can be set for. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The handlers that run in this process right now. */
@Injectable()
export class RunningHandlers {
  readonly #runs = new Map<HandlerRun, RunningJob | undefined>();
  #onEmpty: (() => void)[] = [];

  /** Adds a run, for a job if one asks for it. */
  add(run: HandlerRun, job?: RunningJob): void {
    this.#runs.set(run, job);
  }

  remove(run: HandlerRun): void {
    this.#runs.delete(run);
    if (this.#runs.size > 0 || this.#onEmpty.length === 0) return;
    for (const tell of this.#onEmpty.splice(0)) tell();
  }

  /** How many handlers are running. */
  get size(): number {
    return this.#runs.size;
  }

  /** Waits at most `ms` for all handlers to end, and says whether they have. */
  async isEmptyWithin(ms: number): Promise<boolean> {
    if (this.#runs.size === 0) return true;
    return isOverWithin(ms, new Promise<void>((resolve) => this.#onEmpty.push(resolve)));
  }

  abandonAll(by: AbandonedBy): void {
    for (const run of this.#runs.keys()) run.abandon(by);
  }

  /** Abandons the runs of a queue's job, or of all of its jobs, as cancelled. False if there are none. */
  cancel(queueName: string, jobId?: string): boolean {
    let isFound = false;
    for (const [run, job] of this.#runs) {
      if (job?.queueName !== queueName || (jobId !== undefined && job.id !== jobId)) continue;
      run.abandon('cancelled');
      isFound = true;
    }
    return isFound;
  }
}

/** A job of BullMQ. */
interface RunningJob {
  readonly queueName: string;
  readonly id?: string | undefined;
}

type RunLease = Pick<LeaseHandle, 'isNearlyOver' | 'hasRunOut' | 'confirm'>;

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
