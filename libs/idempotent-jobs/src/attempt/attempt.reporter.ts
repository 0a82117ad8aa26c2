import type { Claim, VanishedAttempt } from '../claim/claim.js';
import type { Hold } from '../dependency/hold.js';
import type { AbandonReason } from '../execute/attempt.js';
import type { DeferredBecause, JobEvents } from '../observe/job-events.js';
import { CALLS } from '../operation/calls.js';
import { messageOf } from '../operation/message-of.js';
import type { Failure } from '../resilience/failure.js';
import type { Decision } from '../settle/decide.js';
import { type RunContext, subjectOf } from './run-context.js';

/** A failure as it was decided about. */
export interface DecidedFailure {
  readonly error: unknown;
  readonly failure: Failure;
  readonly decision: Decision;
  /** How long the handler ran, in ms; 0: it did not. */
  readonly durationMs: number;
}

/** Tells of an attempt, once what it tells is written. */
export class AttemptReporter {
  constructor(private readonly events: JobEvents) {}

  started(context: RunContext, { attempt }: Claim): void {
    if (!this.events.isObserved) return;
    this.events.emit({
      kind: 'started',
      ...subjectOf(context),
      attempt,
      workerId: context.delivery.workerId,
      ...(attempt === 1 && { waitMs: ageMs(context) }),
    });
  }

  completed(
    context: RunContext,
    { attempt }: Claim,
    startedAt: number,
    droppedResult: string | undefined,
    degraded?: string,
  ): void {
    if (!this.events.isObserved) return;
    this.events.emit({
      kind: 'completed',
      ...subjectOf(context),
      attempt,
      durationMs: performance.now() - startedAt,
      endToEndMs: ageMs(context),
      ...(droppedResult !== undefined && { droppedResult }),
      ...(degraded !== undefined && { degraded }),
    });
  }

  replayed(context: RunContext): void {
    this.events.emit({ kind: 'replayed', ...subjectOf(context) });
  }

  /** Nothing is left to do for a delivery, or a call. */
  refused(context: RunContext, because: 'dead' | 'in_doubt'): void {
    this.events.emit({ kind: 'refused', ...subjectOf(context), because });
  }

  tookOver(context: RunContext, { attempt, workerId: from }: VanishedAttempt): void {
    this.events.emit({ kind: 'taken_over', ...subjectOf(context), attempt, from });
  }

  abandoned(context: RunContext, { attempt }: Claim, why: AbandonReason): void {
    this.events.emit({ kind: 'abandoned', ...subjectOf(context), attempt, why });
  }

  fenced(context: RunContext, { attempt }: Claim): void {
    this.events.emit({ kind: 'fence_rejected', ...subjectOf(context), attempt });
  }

  /** A call that finds its operation running looks again and again: it tells of itself, once, when it gives up. */
  deferred(context: RunContext, delayMs: number, reason: string, because: DeferredBecause): void {
    if (because === 'busy' && context.asked.queue === CALLS && context.step === undefined) return;
    this.events.emit({ kind: 'deferred', ...subjectOf(context), delayMs, because, reason });
  }

  held(context: RunContext, { cause: because, dependency }: Hold, delayMs: number, reason: string): void {
    this.events.emit({ kind: 'deferred', ...subjectOf(context), delayMs, because, reason, dependency });
  }

  failed(
    context: RunContext,
    { attempt }: Claim,
    { error, failure, decision, durationMs }: DecidedFailure,
  ): void {
    const told = {
      ...subjectOf(context),
      attempt,
      failure: failure.kind,
      ...(failure.isThrottled === true && { isThrottled: true }),
      error: messageOf(error),
      durationMs,
      dependency: context.delivery.processor.dependency?.name,
    };
    switch (decision.status) {
      case 'retrying': {
        const { delayMs, why } = decision;
        return this.events.emit({
          kind: 'retrying',
          ...told,
          delayMs,
          reason: failure.reason,
          decision: why,
        });
      }
      case 'in_doubt': {
        const { askInMs: delayMs } = decision;
        return this.events.emit({ kind: 'in_doubt', ...told, reason: failure.reason, delayMs });
      }
      case 'dead': {
        const { reason } = decision;
        return this.events.emit({ kind: 'dead', ...told, reason, failureReason: failure.reason });
      }
      default:
        return decision satisfies never;
    }
  }

  /** A doubt that ends no attempt: nobody could be asked about it. */
  doubted(context: RunContext, attempt: number, reason: string, error: unknown): void {
    this.events.emit({ ...this.#doubtOf(context, attempt, error), reason });
  }

  /** The doubt that an attempt has left which vanished with its worker. */
  vanished(context: RunContext, attempt: number, error: unknown): void {
    this.events.emit({
      ...this.#doubtOf(context, attempt, error),
      reason: 'lease_expired',
      isVanished: true,
    });
  }

  #doubtOf(context: RunContext, attempt: number, error: unknown) {
    const facts = { failure: 'in_doubt', error: messageOf(error), durationMs: 0 } as const;
    return { kind: 'in_doubt', ...subjectOf(context), attempt, ...facts } as const;
  }

  reconciled(context: RunContext, { attempt }: Claim, verdict: 'applied' | 'not_applied'): void {
    this.events.emit({ kind: 'reconciled', ...subjectOf(context), attempt, verdict });
  }

  /** `delayMs`: until the next question; undefined: there is none. */
  unanswered(context: RunContext, { attempt }: Claim, reason: string, delayMs: number | undefined): void {
    this.events.emit({
      kind: 'reconciled',
      ...subjectOf(context),
      attempt,
      verdict: 'unknown',
      reason,
      delayMs,
    });
  }
}

/** Since when the operation could have been run. */
function ageMs({ identified }: RunContext): number {
  return Math.max(0, Date.now() - identified.availableAt);
}
