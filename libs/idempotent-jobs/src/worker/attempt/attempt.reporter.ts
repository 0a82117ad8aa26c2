import { Injectable } from '@nestjs/common';
import type { Claim, VanishedAttempt } from '../../ledger/claim/claim.js';
import type { Rejection } from '../../resilience/dependency/rejection.js';
import type { AbandonedBy } from '../../operation/reasons.js';
import { type DeferralReason, JobEvents } from '../../events/job-events.js';
import { messageOf } from '../../operation/message-of.js';
import type { Failure } from '../../operation/failure.js';
import type { NextStep } from '../rules/decide.js';
import { isCall, type OperationRun, subjectOf } from './operation-run.js';

/** A failure as it was decided about. */
export interface DecidedFailure {
  readonly error: unknown;
  readonly failure: Failure;
  readonly nextStep: NextStep;
  /** How long the handler ran, in ms; 0: it did not. */
  readonly durationMs: number;
}

/** Tells of an attempt, once what it tells is written. */
@Injectable()
export class AttemptReporter {
  constructor(private readonly events: JobEvents) {}

  started(run: OperationRun, { attempt }: Claim): void {
    if (!this.events.isObserved) return;
    this.events.emit({
      kind: 'started',
      ...subjectOf(run),
      attempt,
      runId: run.runId,
      ...(attempt === 1 && { waitMs: ageMs(run) }),
    });
  }

  completed(
    run: OperationRun,
    { attempt }: Claim,
    startedAt: number,
    droppedResult: string | undefined,
    degraded?: string,
  ): void {
    if (!this.events.isObserved) return;
    this.events.emit({
      kind: 'completed',
      ...subjectOf(run),
      attempt,
      durationMs: performance.now() - startedAt,
      endToEndMs: ageMs(run),
      ...(droppedResult !== undefined && { droppedResult }),
      ...(degraded !== undefined && { degraded }),
    });
  }

  replayed(run: OperationRun): void {
    this.events.emit({ kind: 'replayed', ...subjectOf(run) });
  }

  /** Nothing is left to do for a delivery, or a call. */
  refused(run: OperationRun, because: 'dead' | 'in_doubt'): void {
    this.events.emit({ kind: 'refused', ...subjectOf(run), because });
  }

  tookOver(run: OperationRun, { attempt, runId: from }: VanishedAttempt): void {
    this.events.emit({ kind: 'taken_over', ...subjectOf(run), attempt, from });
  }

  abandoned(run: OperationRun, { attempt }: Claim, why: AbandonedBy): void {
    this.events.emit({ kind: 'abandoned', ...subjectOf(run), attempt, by: why });
  }

  fenced(run: OperationRun, { attempt }: Claim): void {
    this.events.emit({ kind: 'fence_rejected', ...subjectOf(run), attempt });
  }

  /** A call that finds its operation running looks again and again: it tells of itself, once, when it gives up. */
  deferred(run: OperationRun, delayMs: number, reason: string, because: DeferralReason): void {
    if (because === 'busy' && isCall(run) && run.step === undefined) return;
    this.events.emit({ kind: 'deferred', ...subjectOf(run), delayMs, because, reason });
  }

  rejected(
    run: OperationRun,
    { cause: because, dependency }: Rejection,
    delayMs: number,
    reason: string,
  ): void {
    this.events.emit({ kind: 'deferred', ...subjectOf(run), delayMs, because, reason, dependency });
  }

  failed(
    run: OperationRun,
    { attempt }: Claim,
    { error, failure, nextStep: decision, durationMs }: DecidedFailure,
  ): void {
    const told = {
      ...subjectOf(run),
      attempt,
      failure: failure.kind,
      ...(failure.isThrottled === true && { isThrottled: true }),
      error: messageOf(error),
      durationMs,
      dependency: run.rules.dependency?.name,
    };
    switch (decision.status) {
      case 'retrying': {
        const { delayMs, decision: why } = decision;
        return this.events.emit({
          kind: 'retrying',
          ...told,
          delayMs,
          reason: failure.code,
          decision: why,
        });
      }
      case 'in_doubt': {
        const { reconcileInMs: delayMs } = decision;
        return this.events.emit({ kind: 'in_doubt', ...told, reason: failure.code, delayMs });
      }
      case 'dead': {
        const { reason } = decision;
        return this.events.emit({ kind: 'dead', ...told, reason, failureCode: failure.code });
      }
      default:
        return decision satisfies never;
    }
  }

  /** A doubt that ends no attempt: nobody could be asked about it. */
  doubted(run: OperationRun, attempt: number, reason: string, error: unknown): void {
    this.events.emit({ ...this.#doubtOf(run, attempt, error), reason });
  }

  /** The doubt that an attempt has left which vanished with its worker. */
  vanished(run: OperationRun, attempt: number, error: unknown): void {
    this.events.emit({
      ...this.#doubtOf(run, attempt, error),
      reason: 'lease_expired',
      isVanished: true,
    });
  }

  #doubtOf(run: OperationRun, attempt: number, error: unknown) {
    const facts = { failure: 'in_doubt', error: messageOf(error), durationMs: 0 } as const;
    return { kind: 'in_doubt', ...subjectOf(run), attempt, ...facts } as const;
  }

  reconciled(run: OperationRun, { attempt }: Claim, verdict: 'applied' | 'not_applied'): void {
    this.events.emit({ kind: 'reconciled', ...subjectOf(run), attempt, verdict });
  }

  /** `delayMs`: until the next question; undefined: there is none. */
  unanswered(run: OperationRun, { attempt }: Claim, reason: string, delayMs: number | undefined): void {
    this.events.emit({
      kind: 'reconciled',
      ...subjectOf(run),
      attempt,
      verdict: 'unknown',
      reason,
      delayMs,
    });
  }
}

/** Since when the operation could have been run. */
function ageMs({ identified }: OperationRun): number {
  return Math.max(0, Date.now() - identified.availableAt);
}
