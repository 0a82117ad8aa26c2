import type { Claim } from '../claim/claim.js';
import { type ClaimStore, UnstorableError } from '../claim/claim.store.js';
import type { DeadLetterReason } from '../dead-letter/letter.js';
import type { AttemptBook, FailurePlace } from './attempt-book.js';
import { keyOfOperation } from '../dependency/dependency-key.js';
import { DependencyHeldError, type Hold, holdBehind } from '../dependency/hold.js';
import { currentOperation } from '../execute/current-operation.js';
import { decideHold } from '../settle/decide.js';
import { type Ending, whyPutOff } from './ending.js';
import { type Entrance, StandIn, ThroughDependency } from './entrance.js';
import type { Inquiry } from './inquiry.js';
import { InvalidPayloadError } from '../operation/errors.js';
import { messageOf } from '../operation/message-of.js';
import type { LeasedAttempt } from './leased.attempt.js';
import { claimRequestOf, type RunContext, subjectOf } from './run-context.js';
import type { TransactionalAttempt } from './transactional.attempt.js';

/** Where claim, execute and record meet: runs an operation the way its effect demands. Never rejects. */
export class AttemptRunner {
  constructor(
    private readonly leased: LeasedAttempt,
    private readonly transactional: TransactionalAttempt,
    private readonly book: AttemptBook,
    private readonly inquiry: Inquiry,
    private readonly claims: Pick<ClaimStore, 'look' | 'beginBudget'>,
    private readonly random: () => number,
  ) {}

  /** Wins the right to run the handler, runs it, and records how it ended. */
  run(context: RunContext, handler: () => Promise<unknown>): Promise<Ending> {
    if (context.delivery.processor.per === undefined) return this.#runThrough(context, handler);
    let keyed: RunContext;
    try {
      keyed = underItsKey(context);
    } catch (error) {
      // Under no circuit at all, or under somebody else's, it must not be called.
      return this.failUnstarted(context, error);
    }
    return this.#runThrough(keyed, handler);
  }

  async #runThrough(context: RunContext, handler: () => Promise<unknown>): Promise<Ending> {
    try {
      const { dependency, timeoutMs } = context.delivery.processor;
      if (dependency === undefined) return await this.#run(context, handler, undefined);
      const entry = dependency.enter(timeoutMs);
      if (entry.kind === 'held') return await this.#runHeld(context, entry);
      try {
        // Only the ledger knows whether it is a retry: where there is none to be had, it is asked before anything is claimed.
        if (!dependency.hasRetries && (await this.#isRetry(context)))
          return await this.#runHeld(context, dependency.denyRetry(subjectOf(context)));
        return await this.#run(context, handler, new ThroughDependency(entry));
      } finally {
        entry.leave();
      }
    } catch (error) {
      return this.#unavailable(context, error);
    }
  }

  async #isRetry(context: RunContext): Promise<boolean> {
    const seen = await this.claims.look(claimRequestOf(context));
    return seen.kind === 'runnable' && seen.attempts > 0;
  }

  #run(
    context: RunContext,
    handler: () => Promise<unknown>,
    entrance: Entrance | undefined,
  ): Promise<Ending> {
    return isTransactional(context)
      ? this.#runTransactional(context, handler, entrance)
      : this.leased.run(context, handler, entrance);
  }

  async #runTransactional(
    context: RunContext,
    handler: () => Promise<unknown>,
    entrance: Entrance | undefined,
  ): Promise<Ending> {
    const ending = await this.transactional.run(context, handler, entrance);
    // Its claim was rolled back, and with it the start of its time budget.
    return ending.kind === 'rolled_back' ? this.#putOffHeld(context, ending.hold) : ending;
  }

  /**
   * The dependency lets nothing through. Nothing is claimed, so that no attempt is spent and none can vanish: what has
   * completed is replayed, what may stand in stands in, and everything else is put off, within its time budget.
   */
  async #runHeld(context: RunContext, hold: Hold): Promise<Ending> {
    const decided = await this.#decideHeld(context, hold);
    if (decided.kind === 'ended') return decided.ending;
    const { fallback } = context.delivery;
    if (fallback === undefined || decided.isDoubtful) return this.book.held(context, hold, decided.delayMs);
    const standIn = async (): Promise<unknown> => {
      const operation = currentOperation();
      operation.markDegraded(`${hold.dependency}: ${hold.cause}`);
      return fallback(operation, hold.cause);
    };
    return this.#run(context, standIn, new StandIn(hold));
  }

  /** What the ledger says of an operation that is held back: it has ended, or may wait for so long. */
  async #decideHeld(context: RunContext, hold: Hold): Promise<HeldOperation> {
    const request = claimRequestOf(context);
    const seen = await this.claims.look(request);
    if (seen.kind !== 'runnable') return ended(await this.book.refused(context, seen));
    const { effect, terms, reconcile } = context.delivery.processor;
    if (seen.isDoubtful && reconcile !== undefined) return ended(await this.#leaveDoubt(context, hold));
    const decision = decideHold(seen, hold.retryAfterMs);
    if (decision.kind === 'give_up') {
      const { reason } = decision;
      const error = new DependencyHeldError(hold);
      return ended(await this.refuse({ ...context, givenUpFor: reason }, reason, error));
    }
    // Looked up before any other attempt: nothing stands in for what may be there.
    const isDoubtful = seen.isDoubtful || (effect === 'reconciled' && seen.attempts > 0);
    // Waiting for room is like waiting in the queue; waiting for a dependency that fails is not.
    const begins = seen.remainingMs === undefined && hold.cause === 'circuit_open';
    if (!begins || terms.budgetMs === null) return { kind: 'waits', isDoubtful, delayMs: decision.delayMs };
    await this.claims.beginBudget(request, terms.budgetMs);
    return { kind: 'waits', isDoubtful, delayMs: Math.min(decision.delayMs, terms.budgetMs) };
  }

  /** A question would be a call of the dependency too: the plan goes on as if it had not been answered. */
  #leaveDoubt(context: RunContext, hold: Hold): Promise<Ending> {
    return this.#withoutHandler(context, (claim) =>
      claim.mustAsk
        ? this.inquiry.unresolved(context, claim, hold.cause, new DependencyHeldError(hold))
        : this.leased.putBack(context, claim, hold),
    );
  }

  /** A guard, or an interceptor around ours, threw: the handler was not called, which counts as a failed attempt. */
  failUnstarted(context: RunContext, error: unknown): Promise<Ending> {
    const hold = holdBehind(error);
    if (hold !== undefined) return this.#putOffHeld(context, hold);
    if (context.delivery.handsBack?.(error) === true) return Promise.resolve({ kind: 'handed_back', error });
    // Whatever the error says about effects, there was none.
    const known = this.book.failureBefore(context, error);
    return this.#withoutHandler(context, (claim, place) =>
      claim.mustAsk
        ? this.inquiry.unresolved(context, claim, 'not_asked', error)
        : this.book.fail(context, claim, error, known, undefined, place),
    );
  }

  /** A dependency let nothing through, and whatever else there was of the attempt is taken back. */
  async #putOffHeld(context: RunContext, hold: Hold): Promise<Ending> {
    try {
      const decided = await this.#decideHeld(context, hold);
      return decided.kind === 'ended' ? decided.ending : this.book.held(context, hold, decided.delayMs);
    } catch (error) {
      return this.#unavailable(context, error);
    }
  }

  /** Nothing was claimed and nothing failed: later. */
  putOff(context: RunContext, reason: string): Ending {
    return this.book.deferred(context, 1, reason, 'not_started');
  }

  /** The operation must not be run at all. */
  refuse(context: RunContext, reason: DeadLetterReason, error: unknown): Promise<Ending> {
    return this.#withoutHandler(context, (claim, place) =>
      // What may have happened is asked about, whatever keeps it from being run.
      claim.mustAsk
        ? this.inquiry.unresolved(context, claim, reason, error)
        : this.book.giveUp(context, claim, reason, error, place),
    );
  }

  async #withoutHandler(context: RunContext, end: EndWithoutHandler): Promise<Ending> {
    try {
      return isTransactional(context)
        ? await this.transactional.runNothing(context, end)
        : await this.leased.runNothing(context, end);
    } catch (error) {
      return this.#unavailable(context, error);
    }
  }

  /** Postgres is out of reach, a record unreadable, or a bug of ours: nothing is known to be recorded, so BullMQ is told nothing but "later". */
  #unavailable(context: RunContext, error: unknown): Ending {
    if (error instanceof UnstorableError)
      return { kind: 'unstorable', error: unstorable(context.asked, error.cause) };
    const { word, reason } = whyPutOff(error);
    return this.book.deferred(context, 1000 + this.random() * 4000, reason, word);
  }
}

/** The run with the circuit of its own key. @throws UsageError if it has none */
function underItsKey(context: RunContext): RunContext {
  const { delivery, asked, identified } = context;
  const { processor, job } = delivery;
  if (processor.per === undefined || processor.dependency === undefined || job === undefined) return context;
  const { tenantId, operationKey } = identified;
  const { queue, jobName } = asked;
  const operation = { tenantId, operationKey, queue, jobName, job };
  const dependency = processor.dependency.of(
    keyOfOperation(processor.dependency.name, processor.per, operation),
  );
  return { ...context, delivery: { ...delivery, processor: { ...processor, dependency } } };
}

function unstorable({ queue, jobId }: RunContext['asked'], cause: unknown): InvalidPayloadError {
  const message = `Job ${jobId} of queue "${queue}" holds data that Postgres cannot take: ${messageOf(cause)}`;
  return new InvalidPayloadError(message, [], cause);
}

type HeldOperation =
  | { readonly kind: 'ended'; readonly ending: Ending }
  | { readonly kind: 'waits'; readonly isDoubtful: boolean; readonly delayMs: number };

function ended(ending: Ending): HeldOperation {
  return { kind: 'ended', ending };
}

type EndWithoutHandler = (claim: Claim, place?: FailurePlace) => Promise<Ending>;

function isTransactional({ delivery }: RunContext): boolean {
  return delivery.processor.effect === 'transactional';
}
