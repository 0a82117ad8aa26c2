import { Injectable } from '@nestjs/common';
import { ClaimStore } from '../../ledger/claim/claim.store.js';
import type { DeadLetterReason } from '../../operation/reasons.js';
import { keyOfOperation } from '../../resilience/dependency/dependency-key.js';
import {
  DependencyRejectedError,
  type Rejection,
  rejectionBehind,
} from '../../resilience/dependency/rejection.js';
import { currentOperation } from './current-operation.js';
import { decideRejected } from '../rules/decide.js';
import { AttemptRunner, type RolledBack } from './attempt.runner.js';
import { AttemptRecorder } from './attempt.recorder.js';
import type { AttemptResult } from './attempt-result.js';
import { AdmittedGate, type DependencyGate, FallbackGate } from './dependency-gate.js';
import { claimRequestOf, type OperationRun, subjectOf } from './operation-run.js';

/**
 * Lets an operation through its processor's dependency to its attempt, or ends it without one. Never rejects: when
 * anything goes wrong and nothing is known to be recorded, the delivery is deferred, or refused if Postgres cannot store
 * its data.
 */
@Injectable()
export class OperationRunner {
  constructor(
    private readonly attempts: AttemptRunner,
    private readonly recorder: AttemptRecorder,
    private readonly claims: ClaimStore,
  ) {}

  /** Wins the right to run the handler, runs it, and records how it ended. */
  async run(run: OperationRun, handler: () => Promise<unknown>): Promise<AttemptResult> {
    if (run.rules.dependency !== undefined) return this.#runUnderItsKey(run, handler);
    try {
      const result = await this.attempts.run(run, handler, undefined);
      return result.kind === 'rolled_back' ? await this.#afterRollback(run, result) : result;
    } catch (error) {
      return this.recorder.unavailable(run, error);
    }
  }

  #runUnderItsKey(run: OperationRun, handler: () => Promise<unknown>): Promise<AttemptResult> {
    let keyed: OperationRun;
    try {
      keyed = underItsKey(run);
    } catch (error) {
      // The key of its circuit is unknown: it must not be called without a circuit, or under another key's.
      return this.failUnstarted(run, error);
    }
    return this.#orDefer(run, () => this.#runThrough(keyed, handler));
  }

  async #runThrough(run: OperationRun, handler: () => Promise<unknown>): Promise<AttemptResult> {
    const { dependency, timeoutMs } = run.rules;
    if (dependency === undefined) return this.#runAttempt(run, handler, undefined);
    const entry = dependency.enter(timeoutMs);
    if (entry.kind === 'rejected') return this.#runRejected(run, entry, run.fallback);
    try {
      // Only the ledger knows whether this is a retry. When the retry budget is spent, the ledger is therefore peeked
      // at before the claim.
      if (!dependency.hasRetries && (await this.#isRetry(run)))
        return await this.#runRejected(run, dependency.denyRetry(subjectOf(run)), run.fallback);
      return await this.#runAttempt(run, handler, new AdmittedGate(entry));
    } finally {
      entry.leave();
    }
  }

  async #isRetry(run: OperationRun): Promise<boolean> {
    const seen = await this.claims.peek(claimRequestOf(run));
    return seen.kind === 'runnable' && seen.attempts > 0;
  }

  async #runAttempt(
    run: OperationRun,
    handler: () => Promise<unknown>,
    gate: DependencyGate | undefined,
  ): Promise<AttemptResult> {
    const result = await this.attempts.run(run, handler, gate);
    return result.kind === 'rolled_back' ? this.#afterRollback(run, result) : result;
  }

  /**
   * A claim that was rolled back took the start of its time budget with it, so the ledger is peeked at anew. No fallback
   * stands in now, and none does after a claim on a lease: it was the handler that made the rejected call, or the
   * fallback itself.
   */
  #afterRollback(run: OperationRun, { rejection }: RolledBack): Promise<AttemptResult> {
    return this.#runRejected(run, rejection, undefined);
  }

  /**
   * The dependency lets nothing through. Nothing is claimed, so no attempt is spent and none can vanish: a completed
   * operation is replayed, a fallback stands in where there is one, and every other delivery is deferred within the
   * operation's time budget.
   */
  async #runRejected(
    run: OperationRun,
    rejection: Rejection,
    fallback: OperationRun['fallback'],
  ): Promise<AttemptResult> {
    const request = claimRequestOf(run);
    const seen = await this.claims.peek(request);
    if (seen.kind !== 'runnable') return this.recorder.withoutClaim(run, seen);
    const { effect, claim, reconcile } = run.rules;
    if (seen.isDoubtful && reconcile !== undefined) return this.#leaveDoubt(run, rejection);
    const decision = decideRejected(seen, rejection.retryAfterMs);
    if (decision.kind === 'give_up') return this.attempts.giveUp(run, decision.reason, rejection);
    let { delayMs } = decision;
    // A time budget begins when a dependency fails. Waiting for room (bulkhead, retry budget) is like waiting in the
    // queue.
    const begins = seen.remainingMs === undefined && rejection.cause === 'circuit_open';
    if (begins && claim.budgetMs !== null) {
      await this.claims.beginBudget(request, claim.budgetMs);
      delayMs = Math.min(delayMs, claim.budgetMs);
    }
    // A `reconciled` operation with an earlier attempt is looked up first: no fallback may stand in for an effect that
    // exists.
    const isDoubtful = seen.isDoubtful || (effect === 'reconciled' && seen.attempts > 0);
    if (fallback === undefined || isDoubtful) return this.recorder.rejected(run, rejection, delayMs);
    const answer = async (): Promise<unknown> => {
      const operation = currentOperation();
      operation.markDegraded(`${rejection.dependency}: ${rejection.cause}`);
      return fallback(operation, rejection.cause);
    };
    return this.#runAttempt(run, answer, new FallbackGate(rejection));
  }

  /**
   * A question would be a call of the dependency too, so none is asked. The schedule of questions goes on as if the
   * question had got no answer.
   */
  #leaveDoubt(run: OperationRun, rejection: Rejection): Promise<AttemptResult> {
    const error = new DependencyRejectedError(rejection);
    return this.attempts.withoutHandler(run, rejection.cause, error, async (ground, claim) => {
      const result = await this.attempts.releaseRejected(ground, claim, rejection);
      return result.kind === 'rolled_back' ? this.#afterRollback(run, result) : result;
    });
  }

  /**
   * Records a failed attempt because a guard, or an interceptor around the library's own, threw. The handler was not
   * called.
   */
  failUnstarted(run: OperationRun, error: unknown): Promise<AttemptResult> {
    return this.#orDefer(run, async () => {
      const rejection = rejectionBehind(error);
      if (rejection !== undefined) return this.#runRejected(run, rejection, undefined);
      if (run.handsBack?.(error) === true) return { kind: 'handed_back', error };
      // The handler was not called, so there was no effect, whatever the error says.
      const known = this.recorder.failureBefore(run, error);
      return this.attempts.withoutHandler(run, 'not_asked', error, (ground, claim) =>
        this.recorder.fail(ground, claim, error, known),
      );
    });
  }

  /** Defers the delivery. Nothing was claimed and nothing failed. */
  defer(run: OperationRun, what: string): AttemptResult {
    return this.recorder.deferred(run, 1, 'not_started', what);
  }

  /** Ends an operation that must not be run at all. */
  refuse(run: OperationRun, reason: DeadLetterReason, error: unknown): Promise<AttemptResult> {
    return this.#orDefer(run, () => this.attempts.refuse(run, reason, error));
  }

  async #orDefer(run: OperationRun, work: () => Promise<AttemptResult>): Promise<AttemptResult> {
    try {
      return await work();
    } catch (error) {
      return this.recorder.unavailable(run, error);
    }
  }
}

/** The run with the dependency's circuit for its own key. @throws UsageError if `per` gives no key */
function underItsKey(run: OperationRun): OperationRun {
  const { rules, job, identified, subject } = run;
  if (rules.per === undefined || rules.dependency === undefined || job === undefined) return run;
  const { tenantId, operationKey } = identified;
  const { queue, jobName } = subject;
  const operation = { tenantId, operationKey, queue, jobName, job };
  const key = keyOfOperation(rules.dependency.name, rules.per, operation);
  return { ...run, rules: { ...rules, dependency: rules.dependency.of(key) } };
}
