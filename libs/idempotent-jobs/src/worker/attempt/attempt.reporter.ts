import { Injectable } from '@nestjs/common';
import type { Claim, VanishedAttempt } from '../../ledger/claim/claim.js';
import type { Rejection } from '../../resilience/dependency/rejection.js';
import type { AbandonedBy } from '../../operation/reasons.js';
import { type DeferralReason, JobEvents } from '../../events/job-events.js';
import { messageOf } from '../../operation/thrown.js';
import type { Failure } from '../../operation/failure.js';
import type { NextStep } from '../rules/decide.js';
import { isCall, type OperationRun, subjectOf } from './operation-run.js';

/** A failure, and what was decided about it. */
export interface DecidedFailure {
  readonly error: unknown;
  readonly failure: Failure;
  readonly nextStep: NextStep;
  /** How long the handler ran, in ms. 0 if it was not called. */
  readonly durationMs: number;
}

/** Emits the events of an attempt, each after what it tells is recorded. */
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

  /** The delivery or the call is refused: its operation is dead or in doubt. */
  refused(run: OperationRun, reason: 'dead' | 'in_doubt'): void {
    this.events.emit({ kind: 'refused', ...subjectOf(run), reason });
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

  /**
   * A call that waits for a running operation peeks at it again and again. It emits one event of its own when it gives
   * up.
   */
  deferred(run: OperationRun, delayMs: number, detail: string, cause: DeferralReason): void {
    if (cause === 'busy' && isCall(run) && run.step === undefined) return;
    this.events.emit({ kind: 'deferred', ...subjectOf(run), delayMs, cause, detail });
  }

  rejected(run: OperationRun, { cause, dependency }: Rejection, delayMs: number, detail: string): void {
    this.events.emit({ kind: 'deferred', ...subjectOf(run), delayMs, cause, detail, dependency });
  }

  failed(
    run: OperationRun,
    { attempt }: Claim,
    { error, failure, nextStep, durationMs }: DecidedFailure,
  ): void {
    const facts = {
      ...subjectOf(run),
      attempt,
      failure: failure.kind,
      failureCode: failure.code,
      ...(failure.isThrottled === true && { isThrottled: true }),
      error: messageOf(error),
      durationMs,
      dependency: run.rules.dependency?.name,
    };
    switch (nextStep.status) {
      case 'retrying': {
        const { delayMs, decision } = nextStep;
        return this.events.emit({ kind: 'retrying', ...facts, delayMs, decision });
      }
      case 'in_doubt': {
        return this.events.emit({ kind: 'in_doubt', ...facts, delayMs: nextStep.reconcileInMs });
      }
      case 'dead': {
        return this.events.emit({ kind: 'dead', ...facts, reason: nextStep.reason });
      }
      default:
        return nextStep satisfies never;
    }
  }

  /** A doubt that the service could not be asked about. It ends no attempt. */
  doubted(run: OperationRun, attempt: number, failureCode: string, error: unknown): void {
    this.events.emit({ ...this.#doubtOf(run, attempt, error), failureCode });
  }

  /** The doubt that an attempt left when it vanished with its worker. */
  vanished(run: OperationRun, attempt: number, error: unknown): void {
    this.events.emit({
      ...this.#doubtOf(run, attempt, error),
      failureCode: 'lease_expired',
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

  /** The service gave no answer. `delayMs` is the wait before the next question, undefined when there is none. */
  unanswered(run: OperationRun, { attempt }: Claim, detail: string, delayMs: number | undefined): void {
    this.events.emit({
      kind: 'reconciled',
      ...subjectOf(run),
      attempt,
      verdict: 'unknown',
      detail,
      delayMs,
    });
  }
}

/** For how long the operation could have been run already, in ms. */
function ageMs({ identified }: OperationRun): number {
  return Math.max(0, Date.now() - identified.availableAt);
}
