import type { Claim, ClaimAnswer, ClaimRequest } from '../claim/claim.js';
import type { ClaimStore } from '../claim/claim.store.js';
import { type LeaseHold, type LeaseKeeper, leaseTime } from '../claim/lease-keeper.js';
import type { UnusedClaims } from '../claim/unused-claims.js';
import { DependencyHeldError, type Hold, holdBehind } from '../dependency/hold.js';
import type { Execution } from '../execute/attempt.js';
import { enterOperation } from '../execute/current-operation.js';
import type { AskedOperation } from '../enqueue/operation.store.js';
import type { Database, Queryable } from '../postgres/database.js';
import { CALLS } from '../operation/calls.js';
import { inTransaction } from '../postgres/transaction.js';
import type { Failure } from '../resilience/failure.js';
import type { RecordedResult } from '../record/kept-result.js';
import type { OutcomeStore, Recorded } from '../record/outcome.store.js';
import type { AttemptBook } from './attempt-book.js';
import type { AttemptReporter } from './attempt.reporter.js';
import { attemptTimeoutMs } from './attempt-timeout.js';
import type { Ending } from './ending.js';
import type { Entrance } from './entrance.js';
import type { FollowUps } from './follow-ups.js';
import type { Finding, Inquiry } from './inquiry.js';
import { type OperationFrame, openFrame } from './operation-frame.js';
import { persistently, recordPatienceMs } from './persistently.js';
import { keepResult } from './result-text.js';
import { HandedBackError, waitsForStep } from './refusal-errors.js';
import { claimRequestOf, handsBack, type RunContext } from './run-context.js';

/**
 * An attempt whose right to run is a lease: claimed in one commit, recorded in another, with the effect in between,
 * outside of Postgres.
 *
 * Killed after the claim, the lease runs out and the next delivery decides by the effect; killed after the effect but
 * before the record, likewise: that is the moment the effects are about.
 */
export class LeasedAttempt {
  constructor(
    private readonly claims: ClaimStore,
    private readonly leases: LeaseKeeper,
    private readonly outcomes: OutcomeStore,
    private readonly book: AttemptBook,
    private readonly followUps: FollowUps,
    private readonly database: Database,
    private readonly reporter: AttemptReporter,
    private readonly inquiry: Inquiry,
    private readonly unused: UnusedClaims,
    private readonly onFollowUps: () => void,
  ) {}

  /** `entrance`: past the dependency of the processor; undefined: it has none. */
  async run(
    context: RunContext,
    handler: () => Promise<unknown>,
    entrance: Entrance | undefined,
  ): Promise<Ending> {
    let isCalled = false;
    const call = (): Promise<unknown> => {
      isCalled = true;
      return handler();
    };
    try {
      return await this.#claimAndRun(context, call, entrance);
    } catch (error) {
      // Whatever was won on the way is nobody's: the handler was not called, and that is no doubt.
      if (!isCalled) this.#giveBack(context);
      throw error;
    }
  }

  async #claimAndRun(
    context: RunContext,
    handler: () => Promise<unknown>,
    entrance: Entrance | undefined,
  ): Promise<Ending> {
    const claimSentAt = leaseTime();
    const answer = await this.#claim(context);
    if (answer.kind !== 'acquired') return this.book.refused(context, answer);
    const { claim } = answer;
    // Held until the end is written: a worker that took over meanwhile must win.
    const lease = this.leases.hold(
      {
        tenantId: claim.tenantId,
        operationKey: claim.operationKey,
        token: claim.token,
        leaseMs: context.delivery.processor.leaseMs,
        onLost: () => context.attempt.abandon('lease_lost'),
      },
      claimSentAt,
    );
    try {
      return await this.#runUnder(lease, context, claim, handler, entrance);
    } finally {
      lease.release();
    }
  }

  async #runUnder(
    lease: LeaseHold,
    context: RunContext,
    claim: Claim,
    handler: () => Promise<unknown>,
    entrance: Entrance | undefined,
  ): Promise<Ending> {
    context.attempt.runUnder(lease);
    // The answer may have waited for us in its socket, and somebody else may have the operation by now.
    if (lease.isNearlyOver()) return this.#outlived(context, claim);
    const finding: Finding = this.book.mayRun(context, claim)
      ? { kind: 'run', claim }
      : await this.#clear(context, claim, entrance?.hold);
    if (finding.kind === 'ended') return finding.ending;
    if (lease.isNearlyOver()) return this.#outlived(context, finding.claim);
    const hold = entrance?.admit(context, finding.claim);
    return hold === undefined
      ? this.#execute(context, finding.claim, handler, entrance)
      : this.putBack(context, finding.claim, hold);
  }

  /** The lease was over, or nearly, before anything was begun under it. */
  async #outlived(context: RunContext, claim: Claim): Promise<Ending> {
    if (claim.mustAsk) this.#giveBack(context);
    else await this.#release(context, claim, false);
    return this.book.deferred(
      context,
      1,
      'lease_lost: the lease was over before the handler was called',
      'lease_lost',
    );
  }

  #giveBack(context: RunContext): void {
    const { tenantId, operationKey } = context.identified;
    const { workerId } = context.delivery;
    const { possibleUntil } = this.claims;
    const forgetAfterMs = forgetAfterMsOf(context);
    this.unused.add({ tenantId, operationKey, workerId, possibleUntil, forgetAfterMs });
  }

  /**
   * What stands between a claim and its attempt: one that vanished, a doubt, a policy that allows no other. `hold`: the service
   * cannot be asked now.
   */
  async #clear(context: RunContext, claim: Claim, hold: Hold | undefined): Promise<Finding> {
    let ending = await this.book.begin(context, claim);
    if (ending !== undefined) return { kind: 'ended', ending };
    if (!claim.mustAsk) return { kind: 'run', claim };
    if (hold !== undefined)
      return {
        kind: 'ended',
        ending: await this.inquiry.unresolved(context, claim, hold.cause, new DependencyHeldError(hold)),
      };
    const finding = await this.inquiry.ask(context, claim);
    if (finding.kind === 'ended') return finding;
    ending = await this.book.begin(context, finding.claim);
    return ending === undefined ? finding : { kind: 'ended', ending };
  }

  async #execute(
    context: RunContext,
    claim: Claim,
    handler: () => Promise<unknown>,
    entrance: Entrance | undefined,
  ): Promise<Ending> {
    this.reporter.started(context, claim);
    const startedAt = performance.now();
    const frame = openFrame(context, claim, undefined);
    enterOperation(frame.operation, { dependency: entrance?.dependency });
    const execution = await context.attempt.run(
      handler,
      attemptTimeoutMs(context.delivery.processor.timeoutMs, claim),
    );
    return this.#record(context, claim, execution, frame, startedAt, entrance);
  }

  /** Fails an operation whose handler was never reached. */
  async runNothing(context: RunContext, end: (claim: Claim) => Promise<Ending>): Promise<Ending> {
    try {
      const answer = await this.#claim(context);
      if (answer.kind !== 'acquired') return await this.book.refused(context, answer);
      return (await this.book.begin(context, answer.claim)) ?? (await end(answer.claim));
    } catch (error) {
      this.#giveBack(context);
      throw error;
    }
  }

  /** Asked again under the same worker where the answer was lost: the claim may have been won without our knowing. */
  async #claim(context: RunContext): Promise<ClaimAnswer> {
    const request = claimRequestOf(context);
    const patienceMs = Math.min(request.terms.leaseMs / 2, MAX_CLAIM_PATIENCE_MS);
    const claim = (asked: ClaimRequest): Promise<ClaimAnswer> =>
      persistently(patienceMs, () => this.claims.claim(asked));
    const answer = await claim(request);
    if (answer.kind !== 'absent' || context.identified.rowMs !== undefined) return answer;
    // Whoever has started it may have run it: an attempt without a record, unless it was one of ours without a claim.
    if (!(await context.earlierStarts?.wereUnclaimed())) await this.claims.noteUnrecorded(request);
    return claim({ ...request, needsRow: false });
  }

  #record(
    context: RunContext,
    claim: Claim,
    execution: Execution,
    frame: OperationFrame,
    startedAt: number,
    entrance: Entrance | undefined,
  ): Promise<Ending> {
    const { waitMs } = frame.steps;
    if (waitMs !== undefined && waitsForStep(execution)) return this.#wait(context, claim, waitMs);
    const hold = execution.kind === 'threw' ? holdBehind(execution.error) : undefined;
    if (hold !== undefined) return this.#held(context, claim, execution, hold, frame, startedAt);
    entrance?.heard(context, execution);
    if (handsBack(context, execution)) return this.#handBack(context, claim, execution, frame, startedAt);
    switch (execution.kind) {
      case 'returned':
        return this.#complete(context, claim, execution.value, frame, startedAt);
      case 'threw':
        return this.book.fail(context, claim, execution.error, undefined, startedAt);
      case 'abandoned':
        return this.#abandon(context, claim, execution, startedAt);
      default:
        return execution satisfies never;
    }
  }

  async #complete(
    context: RunContext,
    claim: Claim,
    value: unknown,
    { followUps, degraded }: OperationFrame,
    startedAt: number,
  ): Promise<Ending> {
    const result = { ...keepResult(value, context.delivery.processor.results), degraded };
    const recorded = await persistently(recordPatienceMs(context.delivery.processor.leaseMs), () =>
      followUps.length === 0
        ? this.outcomes.complete(claim, result, context.delivery.processor.terms.retentionMs)
        : this.#completeWith(context, claim, result, followUps),
    );
    if (recorded === 'lost') return this.book.fenced(context, claim);
    if (followUps.length > 0) this.onFollowUps();
    this.reporter.completed(context, claim, startedAt, result.problem, degraded);
    return { kind: 'completed', result: result.value, degraded: result.degraded };
  }

  async #completeWith(
    { delivery: { processor, workerId } }: RunContext,
    claim: Claim,
    result: RecordedResult,
    followUps: readonly AskedOperation[],
  ): Promise<Recorded> {
    let tell = (): void => undefined;
    const write = async (connection: Queryable): Promise<Recorded> => {
      const { retentionMs } = processor.terms;
      const completed = await this.outcomes.completeWithin(connection, claim, result, retentionMs);
      if (completed === 'recorded') tell = await this.followUps.write(connection, followUps, workerId);
      return completed;
    };
    const recorded = await inTransaction(this.database, write, 'record');
    tell();
    return recorded;
  }

  async #abandon(
    context: RunContext,
    claim: Claim,
    { why, error, wasStarted }: Extract<Execution, { kind: 'abandoned' }>,
    startedAt: number,
  ): Promise<Ending> {
    this.reporter.abandoned(context, claim, why);
    if (!wasStarted) {
      await this.#release(context, claim, false);
      const reason = `${why}: the attempt was given back before its handler was called`;
      return this.book.deferred(context, 1, reason, why);
    }
    if (why === 'shutdown' && claim.repeatableMs > 0) {
      // The attempt counts as not started, but its effect may have happened.
      await this.#release(context, claim, context.delivery.processor.effect === 'keyed');
      return this.book.deferred(context, 1, 'shutdown: the attempt was given back', why);
    }
    return this.book.fail(context, claim, error, { kind: 'in_doubt', reason: why }, startedAt);
  }

  /** A step is in doubt, or under way elsewhere: without it the handler cannot have finished, whatever it returned. */
  async #wait(context: RunContext, claim: Claim, waitMs: number): Promise<Ending> {
    // What a handler does beside its steps may have happened.
    // Who comes again for a step or a call is whoever called it.
    const pauseMs = context.delivery.processor.policy.isCallers ? undefined : waitMs;
    await this.#release(context, claim, claim.repeatableMs !== Infinity, pauseMs);
    return this.book.deferred(context, waitMs, 'waiting: one of its steps is not finished', 'waiting');
  }

  /** A call was held back. What another guarded call did before it may have had an effect, and is an attempt. */
  #held(
    context: RunContext,
    claim: Claim,
    execution: Execution,
    hold: Hold,
    { hasCalled }: OperationFrame,
    startedAt: number,
  ): Promise<Ending> {
    if (!hasCalled || claim.repeatableMs === Infinity) return this.putBack(context, claim, hold);
    const { retryAfterMs } = hold;
    const failure: Failure = { kind: 'in_doubt', reason: 'dependency_held', retryAfterMs };
    const error = execution.kind === 'threw' ? execution.error : undefined;
    return this.book.fail(context, claim, error, failure, startedAt);
  }

  /** A dependency did not let the handler through, or a call of it: nothing of it was sent. */
  async putBack(context: RunContext, claim: Claim, hold: Hold): Promise<Ending> {
    const delayMs = Math.min(hold.retryAfterMs, Math.max(claim.remainingMs ?? Infinity, 1));
    await this.#release(
      context,
      claim,
      false,
      context.delivery.processor.policy.isCallers ? undefined : delayMs,
    );
    return this.book.held(context, hold, delayMs);
  }

  /**
   * The handler has put its job off. It had begun: unless it says that nothing has happened, its effect may have, and is
   * looked up, or told apart by its key, before it happens again; where neither can be, a person has to find out.
   */
  async #handBack(
    context: RunContext,
    claim: Claim,
    execution: Execution,
    { isUntouched }: OperationFrame,
    startedAt: number,
  ): Promise<Ending> {
    const { effect } = context.delivery.processor;
    if (effect === 'unrepeatable' && !isUntouched) {
      const failure: Failure = { kind: 'in_doubt', reason: 'handed_back' };
      return this.book.fail(context, claim, new HandedBackError(claim), failure, startedAt);
    }
    await this.#release(context, claim, !isUntouched && (effect === 'reconciled' || effect === 'keyed'));
    return { kind: 'handed_back', error: execution.kind === 'threw' ? execution.error : undefined };
  }

  async #release(context: RunContext, claim: Claim, isDoubtful: boolean, waitMs?: number): Promise<void> {
    const forgetAfterMs = forgetAfterMsOf(context);
    const released = await persistently(recordPatienceMs(context.delivery.processor.leaseMs), () =>
      this.outcomes.release(claim, isDoubtful, waitMs, forgetAfterMs),
    );
    if (released === 'lost') await this.book.surrender(claim);
  }
}

/** A call that was given back is forgotten after a while: nobody may ever call again. Undefined: it is a job's. */
function forgetAfterMsOf({ asked, delivery }: RunContext): number | undefined {
  return asked.queue === CALLS ? delivery.processor.terms.retentionMs : undefined;
}

/** Beyond that the job is put off: a delivery that waits here keeps others of its worker from running. */
const MAX_CLAIM_PATIENCE_MS = 5_000;
