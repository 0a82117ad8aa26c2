import { Injectable } from '@nestjs/common';
import type { Claim } from '../../ledger/claim/claim.js';
import {
  type DeferralReason,
  type JobEvent,
  type JobEventSubject,
  JobEvents,
} from '../../events/job-events.js';
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

/** An event without the fields that name the run. */
type RunEvent = WithoutSubject<JobEvent>;
type WithoutSubject<E> = E extends JobEvent ? Omit<E, keyof JobEventSubject> : never;

/** Emits an attempt's events, each only after what it reports is recorded. */
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

  /**
   * A call that waits for a running operation claims it again and again. It emits one event of its own when it gives up.
   */
  deferred(run: OperationRun, delayMs: number, detail: string, cause: DeferralReason): void {
    if (cause === 'busy' && isCall(run) && run.step === undefined) return;
    this.tell(run, { kind: 'deferred', delayMs, cause, detail });
  }

  failed(
    run: OperationRun,
    { attempt }: Claim,
    { error, failure, nextStep, durationMs }: DecidedFailure,
  ): void {
    const facts = {
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
        return this.tell(run, { kind: 'retrying', ...facts, delayMs, decision });
      }
      case 'in_doubt':
        return this.tell(run, { kind: 'in_doubt', ...facts, delayMs: nextStep.reconcileInMs });
      case 'dead':
        return this.tell(run, { kind: 'dead', ...facts, reason: nextStep.reason });
      default:
        return nextStep satisfies never;
    }
  }

  /** A doubt that ends no attempt: the service could not be asked about it, or its attempt vanished with its worker. */
  doubted(run: OperationRun, attempt: number, failureCode: string, error: unknown, isVanished?: true): void {
    const failure = { failure: 'in_doubt', failureCode, error: messageOf(error), durationMs: 0 } as const;
    this.tell(run, { kind: 'in_doubt', attempt, ...failure, ...(isVanished && { isVanished }) });
  }

  tell(run: OperationRun, event: RunEvent): void {
    this.events.emit({ ...subjectOf(run), ...event });
  }
}

/** For how long the operation could have been run already, in ms. */
function ageMs({ identified }: OperationRun): number {
  return Math.max(0, Date.now() - identified.availableAt);
}
