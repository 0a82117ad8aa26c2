import type { Claim, ClaimAnswer } from '../claim/claim.js';
import type { DeadLetterReason } from '../dead-letter/letter.js';
import { DependencyHeldError, type Hold } from '../dependency/hold.js';
import { OperationConflictError, OperationDeadError, OperationInDoubtError } from '../operation/errors.js';
import { CALLS } from '../operation/calls.js';
import type { Queryable } from '../postgres/database.js';
import type { FailureRecord, OutcomeStore } from '../record/outcome.store.js';
import { classify } from '../resilience/classify.js';
import type { Failure } from '../resilience/failure.js';
import { asKind } from '../resilience/failure-sign.js';
import { decideFailure, type Decision, decideStart, whyGivenUp } from '../settle/decide.js';
import type { AttemptReporter, DecidedFailure } from './attempt.reporter.js';
import { causeOf, deferred, type Ending, type OwnDeferralWord } from './ending.js';
import { persistently, recordPatienceMs } from './persistently.js';
import { GivenUpError, JobExpiredError, TransactionLeftError } from './refusal-errors.js';
import { payloadText, type RunContext } from './run-context.js';

/** The transaction that a failure is recorded in; without one it is recorded by itself. */
export interface FailurePlace {
  readonly connection: Queryable;
  commit(): Promise<void>;
}

type Refusal = Exclude<ClaimAnswer, { kind: 'acquired' }>;

/**
 * What the two ways of running an attempt (under a lease, in a transaction) have in common: what a refused claim
 * means, whether a won one may start, and how a failure is written down.
 */
export class AttemptBook {
  constructor(
    private readonly outcomes: OutcomeStore,
    private readonly reporter: AttemptReporter,
    private readonly onLetter: () => void,
    private readonly random: () => number,
  ) {}

  /** A claim that was not won. */
  async refused(context: RunContext, answer: Refusal): Promise<Ending> {
    const { tenantId, operationKey } = context.identified;
    switch (answer.kind) {
      case 'replay':
        this.reporter.replayed(context);
        return { kind: 'replayed', result: answer.result, degraded: answer.degraded };
      case 'busy':
        return this.deferred(
          context,
          Math.min(Math.max(answer.leaseLeftMs, MIN_BUSY_MS), MAX_BUSY_MS),
          'busy: another worker is running the operation',
        );
      case 'locked':
        return this.deferred(context, LOCKED_MS, 'busy: another transaction holds its row');
      case 'not_yet':
        return this.deferred(context, answer.waitMs, 'not_yet: its time has not come', 'not_yet');
      case 'absent':
      case 'expired':
        return { kind: 'expired', error: new JobExpiredError(context.identified, context.asked.jobId) };
      case 'conflict':
        return { kind: 'conflict', error: new OperationConflictError(tenantId, operationKey) };
      case 'dead':
        this.reporter.refused(context, 'dead');
        return { kind: 'dead', error: new OperationDeadError(context.identified) };
      case 'in_doubt':
        return this.#doubted(context, answer);
      default:
        return answer satisfies never;
    }
  }

  /** Whether there is nothing to do before the handler may run. */
  mayRun(context: RunContext, claim: Claim): boolean {
    return (
      !claim.mustAsk &&
      claim.tookOver === undefined &&
      decideStart(claim, context.delivery.processor.policy) === undefined
    );
  }

  /** Records an attempt that the claim took over, and gives up an operation that must not be run; its ending, if so. */
  async begin(context: RunContext, claim: Claim, place?: FailurePlace): Promise<Ending | undefined> {
    if (claim.tookOver !== undefined) {
      await this.outcomes.takeOver(claim, claim.tookOver, place?.connection);
      this.reporter.tookOver(context, claim.tookOver);
    }
    // Asking is no attempt: whether one may follow is decided afterwards.
    if (claim.mustAsk) return undefined;
    // Its claim is undone with all that it wrote, unless its handler has committed both.
    if (claim.tookOver?.effect === 'transactional')
      return this.fail(context, claim, new TransactionLeftError(), undefined, undefined, place);
    const reason = context.givenUpFor ?? decideStart(claim, context.delivery.processor.policy);
    return reason === undefined
      ? undefined
      : this.giveUp(context, claim, reason, new GivenUpError(claim, reason), place);
  }

  /** A handler that failed: decides what becomes of the operation, and writes it. `startedAt` undefined: it was not called. */
  fail(
    context: RunContext,
    claim: Claim,
    error: unknown,
    known: Failure | undefined,
    startedAt: number | undefined,
    place?: FailurePlace,
  ): Promise<Ending> {
    const { processor } = context.delivery;
    const failure = known ?? classify(error, processor.classify);
    const decision = decideFailure(failure, processor.effect, claim, processor.policy, this.random);
    const durationMs = startedAt === undefined ? 0 : performance.now() - startedAt;
    return this.#record(context, claim, { error, failure, decision, durationMs }, place);
  }

  /** What an error says that was thrown before the handler could have had an effect. */
  failureBefore(context: RunContext, error: unknown): Failure {
    const failure = classify(error, context.delivery.processor.classify);
    const isFinal = failure.kind === 'permanent' || failure.kind === 'programming';
    return asKind(isFinal ? 'permanent' : 'transient', failure);
  }

  /** An operation that must not be tried (again): straight to its dead letter. */
  giveUp(
    context: RunContext,
    claim: Claim,
    reason: DeadLetterReason,
    error: unknown,
    place?: FailurePlace,
  ): Promise<Ending> {
    const decision: Decision = {
      status: 'dead',
      reason,
      isDoubtful: claim.isDoubtful,
      why: whyGivenUp(reason),
    };
    const failure: Failure = { kind: 'permanent', reason };
    return this.#record(context, claim, { error, failure, decision, durationMs: 0 }, place);
  }

  /** A doubt that stays one: to be asked about again in `askInMs`; undefined: a person has to find out. */
  async unresolved(
    context: RunContext,
    claim: Claim,
    reason: string,
    error: unknown,
    askInMs: number | undefined,
  ): Promise<Ending> {
    const evidence = error ?? new OperationInDoubtError(context.identified);
    const record: FailureRecord = {
      status: 'in_doubt',
      error: evidence,
      kind: 'asked',
      reason,
      isDoubtful: true,
      ...(askInMs === undefined
        ? { letter: 'in_doubt' as const, payload: payloadText(context) }
        : { delayMs: askInMs }),
    };
    const { leaseMs } = context.delivery.processor;
    const recorded = await persistently(recordPatienceMs(leaseMs), () => this.outcomes.fail(claim, record));
    if (recorded === 'lost') return this.fenced(context, claim);
    this.reporter.unanswered(context, claim, reason, askInMs);
    if (askInMs !== undefined) return deferred(askInMs, `in_doubt: ${reason}`, 'in_doubt');
    this.onLetter();
    this.reporter.doubted(context, claim.attempt, reason, evidence);
    return { kind: 'in_doubt', error: new OperationInDoubtError(context.identified) };
  }

  /**
   * The lease went to somebody else before the end was written: whatever it was, it is theirs to find out. Where nobody
   * took over, but a webhook or a person has settled the operation or erased it, nothing went wrong: the next delivery
   * gets what they said.
   */
  async fenced(context: RunContext, claim: Claim): Promise<Ending> {
    if (!(await this.#wasReplaced(context, claim)))
      return this.deferred(
        context,
        MIN_BUSY_MS,
        'fenced: the operation was settled during the attempt',
        'fenced',
      );
    this.reporter.fenced(context, claim);
    await this.surrender(claim);
    return this.deferred(
      context,
      MIN_BUSY_MS,
      'fenced: the lease went to another worker before the outcome was recorded',
      'fenced',
    );
  }

  /** The dependency lets nothing through. */
  held(context: RunContext, hold: Hold, delayMs: number): Ending {
    const { cause, dependency } = hold;
    const reason = `${cause}: dependency "${dependency}" lets nothing through`;
    this.reporter.held(context, hold, delayMs, reason);
    return deferred(delayMs, reason, cause, new DependencyHeldError({ ...hold, retryAfterMs: delayMs }));
  }

  deferred(context: RunContext, delayMs: number, reason: string, word: OwnDeferralWord = 'busy'): Ending {
    this.reporter.deferred(context, delayMs, reason, causeOf(word));
    return deferred(delayMs, reason, word);
  }

  /** Whoever took over counts this attempt as vanished with its process, which it has not. */
  async surrender(claim: Claim): Promise<void> {
    try {
      await this.outcomes.surrender(claim);
    } catch {
      // It only makes the operation look more dangerous than it is.
    }
  }

  /** With Postgres out of reach: who knows. */
  async #wasReplaced({ delivery: { workerId } }: RunContext, claim: Claim): Promise<boolean> {
    try {
      return await this.outcomes.wasReplaced(claim, workerId);
    } catch {
      return true;
    }
  }

  async #doubted(
    context: RunContext,
    { unrecorded }: Extract<Refusal, { kind: 'in_doubt' }>,
  ): Promise<Ending> {
    const error = new OperationInDoubtError(context.identified);
    if (unrecorded === undefined) {
      this.reporter.refused(context, 'in_doubt');
      return { kind: 'in_doubt', error };
    }
    const recorded = await this.outcomes.doubt(
      context.identified,
      unrecorded.token,
      error,
      payloadText(context),
    );
    // Somebody was faster: what the operation is now, the next claim says.
    if (recorded === 'lost')
      return this.deferred(context, MIN_BUSY_MS, 'busy: the operation was claimed meanwhile');
    this.onLetter();
    this.reporter.vanished(context, unrecorded.attempt, error);
    return { kind: 'in_doubt', error };
  }

  async #record(
    context: RunContext,
    claim: Claim,
    decided: DecidedFailure,
    place: FailurePlace | undefined,
  ): Promise<Ending> {
    const { error, failure, decision } = decided;
    const askInMs = decision.status === 'in_doubt' ? decision.askInMs : undefined;
    const delayMs = decision.status === 'retrying' ? decision.delayMs : askInMs;
    const isGivenUp = delayMs === undefined;
    const record: FailureRecord = {
      status: decision.status,
      error,
      kind: failure.kind,
      reason: failure.reason,
      decision: decision.why,
      isDoubtful: decision.isDoubtful,
      ...(delayMs !== undefined && { delayMs: Math.ceil(delayMs) }),
      // Nobody may ever call again.
      ...(context.asked.queue === CALLS && { forgetAfterMs: context.delivery.processor.terms.retentionMs }),
      ...(isGivenUp &&
        decision.status !== 'retrying' && { letter: decision.reason, payload: payloadText(context) }),
    };
    const { leaseMs } = context.delivery.processor;
    const recorded =
      place === undefined
        ? await persistently(recordPatienceMs(leaseMs), () => this.outcomes.fail(claim, record))
        : await this.outcomes.fail(claim, record, place.connection);
    if (recorded === 'lost') return this.fenced(context, claim);
    await place?.commit();
    if (isGivenUp) this.onLetter();
    this.reporter.failed(context, claim, decided);
    return { kind: 'failed', error, failure, decision };
  }
}

/** A rival that has just taken or given back the row is through within this time, most likely. */
const MIN_BUSY_MS = 200;

/** A row that somebody holds is worth another look soon: most transactions are short. */
const LOCKED_MS = 500;

/**
 * A running operation mostly ends long before its lease, and a duplicate should learn its result soon after; a vanished
 * worker's lease is worth a look now and then.
 */
const MAX_BUSY_MS = 5_000;
