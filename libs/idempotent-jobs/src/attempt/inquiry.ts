import type { Claim } from '../claim/claim.js';
import { Attempt, type Execution } from '../execute/attempt.js';
import { enterOperation } from '../execute/current-operation.js';
import { UsageError } from '../operation/errors.js';
import type { Database } from '../postgres/database.js';
import { inTransaction } from '../postgres/transaction.js';
import { nextQuestionMs } from '../reconcile/plan.js';
import type { ReconcileSettings } from '../reconcile/reconcile.options.js';
import type { Applied, Reconciliation } from '../reconcile/verdict.js';
import type { OutcomeStore, Recorded } from '../record/outcome.store.js';
import type { AskedOperation } from '../enqueue/operation.store.js';
import { identityAttributes } from '../tracing/attributes.js';
import type { OperationSpan } from '../tracing/operation-span.js';
import type { AttemptBook } from './attempt-book.js';
import type { AttemptReporter } from './attempt.reporter.js';
import type { Ending } from './ending.js';
import type { FollowUps } from './follow-ups.js';
import { openFrame } from './operation-frame.js';
import { persistently, recordPatienceMs } from './persistently.js';
import { keepResult } from './result-text.js';
import type { RunContext } from './run-context.js';

/** How asking ended, and what `reconcile()` has asked to be enqueued. */
interface Questioned {
  readonly execution: Execution;
  readonly followUps: readonly AskedOperation[];
}

/** What an inquiry comes to: the right to run the next attempt, or an end without one. */
export type Finding =
  { readonly kind: 'run'; readonly claim: Claim } | { readonly kind: 'ended'; readonly ending: Ending };

/**
 * Asks whether the effect of an operation's last attempt happened, before anything else is done about it: `reconcile()`
 * is called under a lease and a timeout, and what it says is written under the fencing token.
 *
 * Asking costs no attempt and may fail in any way: whatever is not a clear answer is "unknown", and is asked again when
 * the plan says so. Killed while it asks, the lease runs out and the next delivery asks again.
 */
export class Inquiry {
  constructor(
    private readonly outcomes: OutcomeStore,
    private readonly book: AttemptBook,
    private readonly followUps: FollowUps,
    private readonly database: Database,
    private readonly reporter: AttemptReporter,
    private readonly onFollowUps: () => void,
  ) {}

  async ask(context: RunContext, claim: Claim): Promise<Finding> {
    const { execution, followUps } = await this.#questionTraced(context, claim);
    switch (execution.kind) {
      case 'returned':
        return this.#conclude(context, claim, execution.value, followUps);
      case 'threw':
        return this.#unresolved(context, claim, 'failed', execution.error);
      case 'abandoned':
        return execution.why === 'lease_lost'
          ? { kind: 'ended', ending: await this.book.fenced(context, claim) }
          : this.#unresolved(context, claim, execution.why, execution.error);
      default:
        return execution satisfies never;
    }
  }

  /** There is no answer, and perhaps none was asked for: the plan says when to ask again, or that a person must. */
  async unresolved(context: RunContext, claim: Claim, reason: string, error: unknown): Promise<Ending> {
    const { plan } = settingsOf(context);
    return this.book.unresolved(context, claim, reason, error, nextQuestionMs(plan, claim.doubtAgeMs ?? 0));
  }

  async #questionTraced(context: RunContext, claim: Claim): Promise<Questioned> {
    const { span, asked, identified } = context;
    if (span === undefined) return this.#question(context, claim);
    return span.inside(`reconcile ${asked.queue}`, identityAttributes(identified), async (own) => {
      const questioned = await this.#question({ ...context, span: own }, claim);
      tellAnswer(own, questioned.execution);
      return questioned;
    });
  }

  async #question(context: RunContext, claim: Claim): Promise<Questioned> {
    const question = new Attempt(() => undefined);
    const { attempt, delivery } = context;
    const stop = (): void => question.abandon(attempt.abandonedBecause ?? 'cancelled');
    attempt.signal.addEventListener('abort', stop, { once: true });
    if (attempt.isOver) stop();
    try {
      const { operation, followUps } = openFrame({ ...context, attempt: question }, claim, undefined);
      // The question is part of what the dependency has let through.
      enterOperation(operation, { dependency: delivery.processor.dependency });
      const reconcile = async (): Promise<unknown> => delivery.reconcile?.(operation);
      const execution = await question.run(reconcile, settingsOf(context).timeoutMs);
      return { execution, followUps };
    } finally {
      attempt.signal.removeEventListener('abort', stop);
    }
  }

  async #conclude(
    context: RunContext,
    claim: Claim,
    answer: unknown,
    followUps: readonly AskedOperation[],
  ): Promise<Finding> {
    const verdict = readAnswer(answer);
    switch (verdict?.kind) {
      case 'applied':
        return { kind: 'ended', ending: await this.#apply(context, claim, verdict, followUps) };
      case 'not_applied':
        return this.#start(context, claim);
      case 'unknown':
        return this.#unresolved(context, claim, 'unknown', undefined);
      default:
        return this.#unresolved(context, claim, 'no_answer', new NoAnswerError());
    }
  }

  async #apply(
    context: RunContext,
    claim: Claim,
    { result: value }: Applied,
    followUps: readonly AskedOperation[],
  ): Promise<Ending> {
    const { leaseMs, terms, results } = context.delivery.processor;
    const result = keepResult(value, results);
    const write = async (): Promise<[Recorded, () => void]> =>
      inTransaction(
        this.database,
        async (connection) => {
          const recorded = await this.outcomes.apply(connection, claim, result, terms.retentionMs);
          if (recorded === 'lost') return [recorded, () => undefined];
          const { workerId } = context.delivery;
          return [recorded, await this.followUps.write(connection, followUps, workerId)];
        },
        'record',
      );
    const [recorded, tell] = await persistently(recordPatienceMs(leaseMs), write);
    if (recorded === 'lost') return this.book.fenced(context, claim);
    tell();
    if (followUps.length > 0) this.onFollowUps();
    this.reporter.reconciled(context, claim, 'applied');
    this.reporter.completed(context, claim, performance.now(), result.problem);
    return { kind: 'completed', result: result.value, degraded: undefined };
  }

  async #start(context: RunContext, claim: Claim): Promise<Finding> {
    const { lateArrivalMs } = settingsOf(context).plan;
    if (claim.doubtAgeMs !== undefined && claim.doubtAgeMs < lateArrivalMs)
      return this.#unresolved(context, claim, 'may_arrive_late', undefined);
    const { leaseMs, terms } = context.delivery.processor;
    const started = await persistently(leaseMs, () => this.outcomes.start(claim, terms));
    if (started === 'lost') return { kind: 'ended', ending: await this.book.fenced(context, claim) };
    this.reporter.reconciled(context, claim, 'not_applied');
    return { kind: 'run', claim: started };
  }

  async #unresolved(context: RunContext, claim: Claim, reason: string, error: unknown): Promise<Finding> {
    return { kind: 'ended', ending: await this.unresolved(context, claim, reason, error) };
  }
}

function settingsOf({ delivery }: RunContext): ReconcileSettings {
  const { reconcile } = delivery.processor;
  if (reconcile === undefined) throw new UsageError('An operation is asked about that nobody can ask about.');
  return reconcile;
}

function tellAnswer(span: OperationSpan, execution: Execution): void {
  switch (execution.kind) {
    case 'returned':
      return span.answered(readAnswer(execution.value)?.kind ?? 'no_answer');
    case 'threw':
      return span.unanswered('failed', execution.error);
    case 'abandoned':
      return span.unanswered(execution.why, execution.error);
    default:
      return execution satisfies never;
  }
}

function readAnswer(answer: unknown): Reconciliation | undefined {
  const kind = (answer as { kind?: unknown } | null | undefined)?.kind;
  return kind === 'applied' || kind === 'not_applied' || kind === 'unknown'
    ? (answer as Reconciliation)
    : undefined;
}

class NoAnswerError extends UsageError {
  constructor() {
    super('reconcile() must return applied(result), notApplied() or unknown(); it counts as unknown.');
  }
}
