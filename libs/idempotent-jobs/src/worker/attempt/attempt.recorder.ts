import { Injectable, Optional } from '@nestjs/common';
import type { Claim } from '../../ledger/claim/claim.js';
import { UnstorableError } from '../../ledger/claim/unstorable.js';
import type { DeadLetterReason } from '../../operation/reasons.js';
import { Due } from '../../producer/due.js';
import type { Rejection } from '../../resilience/dependency/rejection.js';
import {
  InvalidPayloadError,
  OperationConflictError,
  OperationDeadError,
  OperationInDoubtError,
} from '../../operation/errors.js';
import { messageOf } from '../../operation/thrown.js';
import { LOCK_NOT_AVAILABLE, sqlStateOf } from '../../ledger/postgres/no-connection.js';
import { type FailureRecord, OutcomeStore } from '../../ledger/record/outcome.store.js';
import { classify } from '../../resilience/classify/classify.js';
import type { Failure } from '../../operation/failure.js';
import { asKind } from '../../resilience/classify/failure-sign.js';
import { decideFailure, type NextStep, decideStart, decisionOf } from '../rules/decide.js';
import { AttemptReporter, type DecidedFailure } from './attempt.reporter.js';
import { type AttemptResult, causeOf, type OwnDeferral, unavailability } from './attempt-result.js';
import type { Ground, GroundAnswer } from './ground.js';
import { isCall, type OperationRun, payloadText } from './operation-run.js';
import { GivenUpError, JobExpiredError, TransactionLeftError } from './refusal-errors.js';

type NotAcquired = Exclude<GroundAnswer, { kind: 'acquired' }>;
type Refused = Extract<AttemptResult, { kind: 'refused' }>;

/** Turns a refused claim into a result, decides whether an acquired claim may start, and records how attempts fail. */
@Injectable()
export class AttemptRecorder {
  constructor(
    private readonly outcomes: OutcomeStore,
    private readonly reporter: AttemptReporter,
    private readonly due: Due,
    @Optional() private readonly random: () => number = Math.random,
  ) {}

  /** Gives the result of a delivery whose claim was not won. */
  async withoutClaim(run: OperationRun, answer: NotAcquired): Promise<AttemptResult> {
    const { tenantId, operationKey } = run.identified;
    switch (answer.kind) {
      case 'replay':
        this.reporter.tell(run, { kind: 'replayed' });
        return { kind: 'replayed', result: answer.result, degraded: answer.degraded };
      case 'busy': {
        const delayMs = Math.min(Math.max(answer.leaseLeftMs, MIN_BUSY_MS), MAX_BUSY_MS);
        return this.deferred(run, delayMs, 'busy', 'another worker is running the operation');
      }
      case 'locked':
        return this.#locked(run);
      case 'no_connection':
        return this.deferred(run, LOCKED_MS, 'busy', "handlers' transactions have all connections");
      case 'not_yet':
        return this.deferred(run, answer.waitMs, 'not_yet', 'its time has not come');
      case 'absent':
      case 'expired':
        return refusal('expired', new JobExpiredError(run.identified, run.subject.jobId));
      case 'conflict':
        return refusal('conflict', new OperationConflictError(tenantId, operationKey));
      case 'dead':
        this.reporter.tell(run, { kind: 'refused', reason: 'dead' });
        return refusal('dead', new OperationDeadError(run.identified));
      case 'in_doubt':
        return this.#doubted(run, answer);
      default:
        return answer satisfies never;
    }
  }

  /** Whether the handler may run at once: no doubt, no vanished attempt and no spent policy stands before it. */
  mayRun({ rules }: OperationRun, claim: Claim): boolean {
    return (
      !claim.mustReconcile && claim.tookOver === undefined && decideStart(claim, rules.policy) === undefined
    );
  }

  /**
   * Records an attempt that the claim took over, and gives up an operation that must not be run. Undefined when the
   * operation goes on.
   */
  async begin(ground: Ground, claim: Claim): Promise<AttemptResult | undefined> {
    const result = await this.takeOver(ground, claim);
    // Asking the service costs no attempt: whether an attempt may follow is decided after the answer.
    if (result !== undefined || claim.mustReconcile) return result;
    const reason = decideStart(claim, ground.run.rules.policy);
    return reason === undefined ? undefined : this.giveUp(ground, claim, reason);
  }

  /** Records an attempt that the claim took over. Undefined when the operation goes on. */
  async takeOver(
    ground: Ground,
    claim: Claim,
    vanished = claim.tookOver,
  ): Promise<AttemptResult | undefined> {
    if (vanished === undefined) return undefined;
    await ground.takeOver(claim, vanished);
    const { attempt, runId: from } = vanished;
    this.reporter.tell(ground.run, { kind: 'taken_over', attempt, from });
    // A transaction that dies takes its claim with it. A vanished transactional attempt was therefore committed by its
    // handler.
    return claim.mustReconcile || vanished.effect !== 'transactional'
      ? undefined
      : this.#decide(ground, claim, new TransactionLeftError());
  }

  /**
   * Decides what becomes of an operation whose handler failed, and records it. `startedAt` is undefined when the
   * handler was not called.
   */
  async fail(
    ground: Ground,
    claim: Claim,
    error: unknown,
    known?: Failure,
    startedAt?: number,
  ): Promise<AttemptResult> {
    const answer = await ground.revert(claim);
    if (answer.kind !== 'acquired') return this.withoutClaim(ground.run, answer);
    const { claim: current } = answer;
    // The handler committed its own transaction. Trying again would write everything twice.
    if (current !== claim && current.token === claim.token)
      return this.#decide(ground, current, new TransactionLeftError(), undefined, startedAt);
    // The attempt was made, so that its own failure decides, whatever the policy says of another start.
    const result = current === claim ? undefined : await this.takeOver(ground, current);
    return result ?? this.#decide(ground, current, error, known, startedAt);
  }

  /** Classifies an error that was thrown before the handler could have had an effect. */
  failureBefore(run: OperationRun, error: unknown): Failure {
    const failure = classify(error, run.rules.classify);
    const isFinal = failure.kind === 'permanent' || failure.kind === 'programming';
    return asKind(isFinal ? 'permanent' : 'transient', failure);
  }

  /** Gives up an operation that must not be tried (again), and writes its dead letter. */
  giveUp(
    ground: Ground,
    claim: Claim,
    reason: DeadLetterReason,
    error: unknown = new GivenUpError(claim, reason),
  ): Promise<AttemptResult> {
    const nextStep: NextStep = {
      status: 'dead',
      reason,
      isDoubtful: claim.isDoubtful,
      decision: decisionOf(reason),
    };
    const failure: Failure = { kind: 'permanent', code: reason };
    return this.#record(ground, claim, { error, failure, nextStep, durationMs: 0 });
  }

  /**
   * Records that a doubt was not resolved. The service is asked again in `reconcileInMs`; undefined when a person has
   * to find out.
   */
  async unresolved(
    ground: Ground,
    claim: Claim,
    reason: string,
    error: unknown,
    reconcileInMs: number | undefined,
  ): Promise<AttemptResult> {
    const { run } = ground;
    const evidence = error ?? new OperationInDoubtError(run.identified);
    const recorded = await ground.fail(claim, {
      status: 'in_doubt',
      error: evidence,
      kind: 'reconciled',
      reason,
      isDoubtful: true,
      ...(reconcileInMs === undefined
        ? { letter: 'in_doubt' as const, payload: payloadText(run) }
        : { delayMs: reconcileInMs }),
    });
    if (recorded === 'lost') return this.fenced(run, claim);
    const { attempt } = claim;
    const question = { verdict: 'unknown', detail: reason, delayMs: reconcileInMs } as const;
    this.reporter.tell(run, { kind: 'reconciled', attempt, ...question });
    if (reconcileInMs !== undefined)
      return {
        kind: 'deferred',
        delayMs: reconcileInMs,
        deferral: 'in_doubt',
        detail: `in_doubt: ${reason}`,
      };
    this.due.wake();
    this.reporter.doubted(run, attempt, reason, evidence);
    return refusal('in_doubt', new OperationInDoubtError(run.identified));
  }

  /**
   * The end of the attempt was not recorded, because its token is outdated. If another worker took over, that worker
   * finds out what happened. If a webhook or a person resolved or erased the operation, nothing went wrong: the next
   * delivery gets what was recorded.
   */
  async fenced(run: OperationRun, claim: Claim): Promise<AttemptResult> {
    // When Postgres cannot say, another worker may have claimed it.
    const wasReplaced = await this.outcomes.wasReplaced(claim, run.runId).catch(() => true);
    if (!wasReplaced)
      return this.deferred(run, MIN_BUSY_MS, 'fenced', 'the operation was settled during the attempt');
    this.reporter.tell(run, { kind: 'fence_rejected', attempt: claim.attempt });
    // The worker that took over counted this attempt as vanished with its process, but it was only late. Without the
    // note the operation only looks more dangerous than it is.
    await this.outcomes.surrender(claim).catch(() => undefined);
    const what = 'the lease went to another worker before the outcome was recorded';
    return this.deferred(run, MIN_BUSY_MS, 'fenced', what);
  }

  /** Defers the delivery because the dependency lets nothing through. */
  rejected(run: OperationRun, rejection: Rejection, delayMs: number): AttemptResult {
    const { cause, dependency } = rejection;
    const detail = `${cause}: dependency "${dependency}" lets nothing through`;
    this.reporter.tell(run, { kind: 'deferred', delayMs, cause, detail, dependency });
    return { kind: 'deferred', delayMs, deferral: cause, detail, rejection };
  }

  /**
   * The end of a delivery of which nothing is known to be recorded. It is refused if Postgres cannot store its data.
   * Otherwise it is deferred: Postgres is out of reach, a row is locked, a record is unreadable, or this library has a
   * bug.
   */
  unavailable(run: OperationRun, error: unknown): AttemptResult {
    if (error instanceof UnstorableError) return refusal('unstorable', unstorable(run, error.cause));
    // A transaction that met a locked row was rolled back: nothing of it is left.
    if (run.rules.effect === 'transactional' && sqlStateOf(error) === LOCK_NOT_AVAILABLE)
      return this.#locked(run);
    return this.deferred(run, 1000 + this.random() * 4000, unavailability(error), messageOf(error));
  }

  deferred(run: OperationRun, delayMs: number, deferral: OwnDeferral, what: string): AttemptResult {
    const detail = `${deferral}: ${what}`;
    this.reporter.deferred(run, delayMs, detail, causeOf(deferral));
    return { kind: 'deferred', delayMs, deferral, detail };
  }

  #locked(run: OperationRun): AttemptResult {
    return this.deferred(run, LOCKED_MS, 'busy', 'another transaction holds its row');
  }

  async #doubted(
    run: OperationRun,
    { unrecorded }: Extract<NotAcquired, { kind: 'in_doubt' }>,
  ): Promise<AttemptResult> {
    const error = new OperationInDoubtError(run.identified);
    if (unrecorded === undefined) {
      this.reporter.tell(run, { kind: 'refused', reason: 'in_doubt' });
      return refusal('in_doubt', error);
    }
    const { token, attempt } = unrecorded;
    const recorded = await this.outcomes.doubt(run.identified, token, error, payloadText(run));
    // Another transaction was faster: the next claim tells what the operation is now.
    if (recorded === 'lost')
      return this.deferred(run, MIN_BUSY_MS, 'busy', 'the operation was claimed meanwhile');
    this.due.wake();
    this.reporter.doubted(run, attempt, 'lease_expired', error, true);
    return refusal('in_doubt', error);
  }

  #decide(
    ground: Ground,
    claim: Claim,
    error: unknown,
    known?: Failure,
    startedAt?: number,
  ): Promise<AttemptResult> {
    const { rules } = ground.run;
    const failure = known ?? classify(error, rules.classify);
    const nextStep = decideFailure(failure, rules.effect, claim, rules.policy, this.random);
    const durationMs = startedAt === undefined ? 0 : performance.now() - startedAt;
    return this.#record(ground, claim, { error, failure, nextStep, durationMs });
  }

  async #record(ground: Ground, claim: Claim, decided: DecidedFailure): Promise<AttemptResult> {
    const { run } = ground;
    const { error, failure, nextStep } = decided;
    const reconcileInMs = nextStep.status === 'in_doubt' ? nextStep.reconcileInMs : undefined;
    const delayMs = nextStep.status === 'retrying' ? nextStep.delayMs : reconcileInMs;
    const isGivenUp = delayMs === undefined;
    const record: FailureRecord = {
      status: nextStep.status,
      error,
      kind: failure.kind,
      reason: failure.code,
      decision: nextStep.decision,
      isDoubtful: nextStep.isDoubtful,
      ...(delayMs !== undefined && { delayMs: Math.ceil(delayMs) }),
      // A call may never be made again, so its row is forgotten after a while.
      ...(isCall(run) && { forgetAfterMs: run.rules.claim.retentionMs }),
      ...(isGivenUp &&
        nextStep.status !== 'retrying' && { letter: nextStep.reason, payload: payloadText(run) }),
    };
    if ((await ground.fail(claim, record)) === 'lost') return this.fenced(run, claim);
    if (isGivenUp) this.due.wake();
    this.reporter.failed(run, claim, decided);
    return { kind: 'failed', error, failure, nextStep };
  }
}

function refusal(reason: Refused['reason'], error: Error): Refused {
  return { kind: 'refused', reason, error };
}

function unstorable({ subject: { queue, jobId } }: OperationRun, cause: unknown): InvalidPayloadError {
  const message = `Job ${jobId} of queue "${queue}" holds data that Postgres cannot take: ${messageOf(cause)}`;
  return new InvalidPayloadError(message, [], cause);
}

/** A rival that has just taken or released the row is most likely done within this time. */
const MIN_BUSY_MS = 200;

/** Most transactions are short, so a locked row is tried again soon. */
const LOCKED_MS = 500;

/**
 * A running operation mostly ends long before its lease, and a duplicate should learn its result soon after. A vanished
 * worker's lease is claimed again this often.
 */
const MAX_BUSY_MS = 5_000;
