import { Injectable } from '@nestjs/common';
import type { Claim } from '../../ledger/claim/claim.js';
import type { DeadLetterReason } from '../../operation/reasons.js';
import {
  DependencyRejectedError,
  type Rejection,
  rejectionBehind,
} from '../../resilience/dependency/rejection.js';
import { Due } from '../../producer/due.js';
import { enterOperation } from './current-operation.js';
import type { HandlerResult } from './handler-run.js';
import { classify } from '../../resilience/classify/classify.js';
import type { Failure } from '../../operation/failure.js';
import { AttemptRecorder } from './attempt.recorder.js';
import { AttemptReporter } from './attempt.reporter.js';
import type { AttemptResult } from './attempt-result.js';
import type { DependencyGate } from './dependency-gate.js';
import type { Ground } from './ground.js';
import { Grounds } from './grounds.js';
import { handsBack, type OperationRun } from './operation-run.js';
import { OperationFrame } from './operation-frame.js';
import { keepResult } from './kept-result.js';
import { type Cleared, Reconciler } from './reconciler.js';
import { HandedBackError, waitsForStep } from './refusal-errors.js';

/** A dependency rejected the attempt, or a call that it made. Nothing of the attempt is left, not even its claim. */
export interface RolledBack {
  readonly kind: 'rolled_back';
  readonly rejection: Rejection;
}

/**
 * One attempt: claim, take over, reconcile, pass the gate, run, record. The order of the steps is the same on each
 * {@link Ground}.
 */
@Injectable()
export class AttemptRunner {
  constructor(
    private readonly grounds: Grounds,
    private readonly recorder: AttemptRecorder,
    private readonly reconciler: Reconciler,
    private readonly reporter: AttemptReporter,
    private readonly due: Due,
  ) {}

  /** Runs the attempt. `gate` leads past the dependency of its processor; undefined when the processor has none. */
  run(
    run: OperationRun,
    handler: () => Promise<unknown>,
    gate: DependencyGate | undefined,
  ): Promise<AttemptResult | RolledBack> {
    return this.#claimed(this.grounds.of(run), (ground, claim) =>
      this.#runClaimed(ground, claim, handler, gate),
    );
  }

  /**
   * Ends an operation whose handler must not, or cannot, be called. An effect that may have happened is still asked about
   * later, whatever keeps the operation from being run: `reason` and `error` say what does.
   */
  withoutHandler(
    run: OperationRun,
    reason: string,
    error: unknown,
    end: (ground: Ground, claim: Claim) => Promise<AttemptResult>,
  ): Promise<AttemptResult> {
    return this.#claimed(this.grounds.claiming(run), async (ground, claim) => {
      const result = await this.recorder.begin(ground, claim);
      if (result !== undefined) return result;
      return claim.mustReconcile
        ? this.reconciler.unresolved(ground, claim, reason, error)
        : end(ground, claim);
    });
  }

  /**
   * Ends an operation that must not be run at all, and writes its dead letter. Where its retry policy allows no other
   * attempt anyway, the letter says that instead of `reason`.
   */
  refuse(run: OperationRun, reason: DeadLetterReason, error: unknown): Promise<AttemptResult> {
    return this.withoutHandler(run, reason, error, (ground, claim) =>
      this.recorder.giveUp(ground, claim, reason, error),
    );
  }

  /** Ends an operation whose time budget ended while its dependency lets nothing through, whatever its policy says. */
  giveUp(run: OperationRun, reason: DeadLetterReason, rejection: Rejection): Promise<AttemptResult> {
    return this.#claimed(this.grounds.claiming(run), async (ground, claim) => {
      const result = await this.recorder.takeOver(ground, claim);
      if (result !== undefined) return result;
      return claim.mustReconcile
        ? this.reconciler.unresolved(ground, claim, reason, new DependencyRejectedError(rejection))
        : this.recorder.giveUp(ground, claim, reason);
    });
  }

  async #claimed<R>(
    ground: Ground,
    work: (ground: Ground, claim: Claim) => Promise<R>,
  ): Promise<R | AttemptResult> {
    const { run } = ground;
    try {
      const answer = await ground.claim();
      if (answer.kind !== 'acquired') return await this.recorder.withoutClaim(run, answer);
      return await work(ground, answer.claim);
    } catch (error) {
      if (!run.handlerRun.wasStarted) ground.forgo();
      throw error;
    } finally {
      const leaving = ground.leave();
      if (leaving !== undefined) await leaving;
    }
  }

  async #runClaimed(
    ground: Ground,
    claimed: Claim,
    handler: () => Promise<unknown>,
    gate: DependencyGate | undefined,
  ): Promise<AttemptResult | RolledBack> {
    const { run } = ground;
    if (ground.isNearlyOver) return this.#outlived(ground, claimed);
    let claim = claimed;
    if (!this.recorder.mayRun(run, claim)) {
      const cleared = await this.#clear(ground, claim, gate?.rejection);
      if (cleared.kind === 'ended') return cleared.result;
      claim = cleared.claim;
      if (ground.isNearlyOver) return this.#outlived(ground, claim);
    }
    const rejection = gate?.admit(run, claim);
    if (rejection !== undefined) return this.releaseRejected(ground, claim, rejection);

    const timeoutMs = Math.min(run.rules.timeoutMs, claim.remainingMs ?? Infinity);
    const opening = ground.open(timeoutMs);
    const transaction = opening && (await opening);
    this.reporter.started(run, claim);
    const startedAt = performance.now();
    const frame = new OperationFrame(run, claim, transaction, this.#runStep);
    enterOperation(frame, {
      holdsTransaction: transaction !== undefined,
      dependency: gate?.dependency,
    });
    const result = await run.handlerRun.run(handler, timeoutMs);
    return this.#record(ground, claim, result, frame, startedAt, gate);
  }

  /** Runs a step as an attempt of its own inside of its handler's attempt. No gate stands before it. */
  readonly #runStep = async (step: OperationRun, handler: () => Promise<unknown>): Promise<AttemptResult> => {
    try {
      const result = await this.run(step, handler, undefined);
      return result.kind === 'rolled_back'
        ? this.recorder.rejected(step, result.rejection, result.rejection.retryAfterMs)
        : result;
    } catch (error) {
      return this.recorder.unavailable(step, error);
    }
  };

  /**
   * Clears what stands between a claim and its attempt: an attempt that vanished, a doubt, a policy that allows no
   * other attempt. `rejection` is set when the service cannot be asked now.
   */
  async #clear(ground: Ground, claim: Claim, rejection: Rejection | undefined): Promise<Cleared> {
    const begun = await this.recorder.begin(ground, claim);
    if (begun !== undefined) return { kind: 'ended', result: begun };
    if (!claim.mustReconcile) return { kind: 'run', claim };
    if (rejection !== undefined) {
      const error = new DependencyRejectedError(rejection);
      return {
        kind: 'ended',
        result: await this.reconciler.unresolved(ground, claim, rejection.cause, error),
      };
    }
    const asked = await this.reconciler.reconcile(ground, claim, this.#runStep);
    if (asked.kind === 'ended') return asked;
    const result = await this.recorder.begin(ground, asked.claim);
    return result === undefined ? asked : { kind: 'ended', result };
  }

  /** Releases the claim: its lease was over, or nearly over, before anything was begun under it. */
  async #outlived(ground: Ground, claim: Claim): Promise<AttemptResult> {
    await ground.release(claim);
    return this.recorder.deferred(
      ground.run,
      1,
      'lease_lost',
      'the lease was over before the handler was called',
    );
  }

  #record(
    ground: Ground,
    claim: Claim,
    result: HandlerResult,
    frame: OperationFrame,
    startedAt: number,
    gate: DependencyGate | undefined,
  ): Promise<AttemptResult | RolledBack> {
    const { waitMs } = frame;
    if (waitMs !== undefined && waitsForStep(result)) return this.#wait(ground, claim, waitMs);
    const rejection = result.kind === 'threw' ? rejectionBehind(result.error) : undefined;
    if (rejection !== undefined) {
      // An earlier guarded call of this attempt may have had an effect, so the attempt counts.
      if (ground.takesBack || !frame.hasCalled || claim.repeatableMs === Infinity)
        return this.releaseRejected(ground, claim, rejection);
      const { retryAfterMs } = rejection;
      const failure: Failure = { kind: 'in_doubt', code: 'dependency_rejected', retryAfterMs };
      const error = result.kind === 'threw' ? result.error : undefined;
      return this.recorder.fail(ground, claim, error, failure, startedAt);
    }
    gate?.report(ground.run, result);
    if (result.kind === 'threw' && handsBack(ground.run, result))
      return this.#handBack(ground, claim, result.error, frame.isUntouched, startedAt);
    switch (result.kind) {
      case 'returned':
        return this.#complete(ground, claim, result.value, frame, startedAt);
      case 'threw':
        return this.recorder.fail(ground, claim, result.error, undefined, startedAt);
      case 'abandoned':
        return this.#abandon(ground, claim, result, startedAt);
      default:
        return result satisfies never;
    }
  }

  async #complete(
    ground: Ground,
    claim: Claim,
    value: unknown,
    { followUps, degraded }: OperationFrame,
    startedAt: number,
  ): Promise<AttemptResult> {
    const { run } = ground;
    const { results, classify: ownRules } = run.rules;
    const kept = keepResult(value, results);
    const result = { ...kept, degraded };
    const completion = await ground.complete(claim, result, followUps);
    if (completion === 'lost') return this.recorder.fenced(run, claim);
    if (completion !== 'recorded') {
      if (completion.kind === 'beaten') return this.recorder.withoutClaim(run, completion.answer);
      if (completion.kind === 'conflicted')
        return this.recorder.deferred(run, RIVAL_MS, 'busy', 'its transaction conflicted with another one');
      const { error } = completion;
      return this.recorder.fail(ground, claim, error, classify(error, ownRules), startedAt);
    }
    if (followUps.length > 0) this.due.wake();
    this.reporter.completed(run, claim, startedAt, kept.problem, degraded);
    return { kind: 'completed', result: kept.value, degraded };
  }

  async #abandon(
    ground: Ground,
    claim: Claim,
    { by: why, error, wasStarted }: Extract<HandlerResult, { kind: 'abandoned' }>,
    startedAt: number,
  ): Promise<AttemptResult> {
    const { run } = ground;
    await ground.abandon();
    this.reporter.tell(run, { kind: 'abandoned', attempt: claim.attempt, by: why });
    // An attempt that a shutdown stopped counts as not started where it can be undone or repeated. Its effect may still
    // have happened.
    const isReleased = !wasStarted || (why === 'shutdown' && (ground.takesBack || claim.repeatableMs > 0));
    if (!isReleased)
      return this.recorder.fail(ground, claim, error, { kind: 'in_doubt', code: why }, startedAt);
    await ground.release(claim, { isDoubtful: wasStarted && run.rules.effect === 'keyed' });
    return this.recorder.deferred(run, 1, why, 'the attempt was given back');
  }

  /**
   * Defers the delivery because a step is in doubt or under way elsewhere: without that step the handler cannot have
   * finished, whatever it returned.
   */
  async #wait(ground: Ground, claim: Claim, waitMs: number): Promise<AttemptResult> {
    // What the handler does outside of its steps may have happened.
    await ground.release(claim, {
      isDoubtful: claim.repeatableMs !== Infinity,
      waitMs: pauseOf(ground, waitMs),
    });
    return this.recorder.deferred(ground.run, waitMs, 'waiting', 'one of its steps is not finished');
  }

  /** Releases the claim because a dependency rejected the handler, or a call that it made. Nothing was sent. */
  async releaseRejected(
    ground: Ground,
    claim: Claim,
    rejection: Rejection,
  ): Promise<AttemptResult | RolledBack> {
    const delayMs = Math.min(rejection.retryAfterMs, Math.max(claim.remainingMs ?? Infinity, 1));
    await ground.release(claim, { waitMs: pauseOf(ground, delayMs) });
    // The rollback of a transaction also undoes its claim, and with it the start of its time budget.
    return ground.run.rules.effect === 'transactional'
      ? { kind: 'rolled_back', rejection }
      : this.recorder.rejected(ground.run, rejection, delayMs);
  }

  /**
   * The handler has handed its job back after it had begun. Unless it says that nothing happened, its effect may have
   * happened: `reconciled` looks it up first, `keyed` repeats it under its key, and for `unrepeatable` a person has to
   * find out.
   */
  async #handBack(
    ground: Ground,
    claim: Claim,
    error: unknown,
    isUntouched: boolean,
    startedAt: number,
  ): Promise<AttemptResult> {
    const { effect } = ground.run.rules;
    if (effect === 'unrepeatable' && !isUntouched) {
      const failure: Failure = { kind: 'in_doubt', code: 'handed_back' };
      return this.recorder.fail(ground, claim, new HandedBackError(claim), failure, startedAt);
    }
    await ground.release(claim, {
      isDoubtful: !isUntouched && (effect === 'reconciled' || effect === 'keyed'),
    });
    return { kind: 'handed_back', error };
  }
}

/** For how long the operation must not be claimed, in ms. Undefined for steps and calls: their caller decides when. */
function pauseOf({ run }: Ground, ms: number): number | undefined {
  return run.rules.policy.isCallers ? undefined : ms;
}

/** The other transaction has won, and mostly ends within this time. */
const RIVAL_MS = 100;
