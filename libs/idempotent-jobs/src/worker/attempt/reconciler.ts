import { Injectable } from '@nestjs/common';
import type { Claim } from '../../ledger/claim/claim.js';
import { Due } from '../../producer/due.js';
import { enterOperation } from './current-operation.js';
import { type HandlerResult, HandlerRun } from './handler-run.js';
import { UsageError } from '../../operation/errors.js';
import type { RequestedOperation } from '../../producer/operation.store.js';
import { Database } from '../../ledger/postgres/database.js';
import { nextQuestionMs, type ReconcileRules } from '../rules/reconcile.options.js';
import type { Applied, Reconciliation } from '../../operation/effect.js';
import type { Recorded } from '../../ledger/claim/exchange.js';
import { OutcomeStore } from '../../ledger/record/outcome.store.js';
import { identityAttributes } from '../../tracing/attributes.js';
import type { OperationSpan } from './operation-span.js';
import { AttemptRecorder } from './attempt.recorder.js';
import { AttemptReporter } from './attempt.reporter.js';
import type { AttemptResult } from './attempt-result.js';
import { FollowUps } from './follow-ups.js';
import type { Ground } from './ground.js';
import { OperationFrame } from './operation-frame.js';
import type { OperationRun } from './operation-run.js';
import { withRetry, recordPatienceMs } from './with-retry.js';
import { keepResult } from './kept-result.js';
import type { RunStep } from './steps.js';

/** How a question ended, and what `reconcile()` enqueued. */
interface Questioned {
  readonly answer: HandlerResult;
  readonly followUps: readonly RequestedOperation[];
}

/** What may follow after a claim was cleared: an attempt under `claim`, or an end without an attempt. */
export type Cleared =
  | { readonly kind: 'run'; readonly claim: Claim }
  | { readonly kind: 'ended'; readonly result: AttemptResult };

/**
 * Asks whether the effect of an operation's last attempt happened, before anything else is done about it: calls
 * `reconcile()` under a lease and a timeout, and records its answer under the fencing token.
 *
 * A question costs no attempt and may fail in any way: everything but a clear answer is "unknown", and is asked again
 * on the schedule of questions. If the process is killed during a question, the lease runs out and the next delivery
 * asks again.
 */
@Injectable()
export class Reconciler {
  constructor(
    private readonly outcomes: OutcomeStore,
    private readonly recorder: AttemptRecorder,
    private readonly followUps: FollowUps,
    private readonly database: Database,
    private readonly reporter: AttemptReporter,
    private readonly due: Due,
  ) {}

  async reconcile(ground: Ground, claim: Claim, runStep: RunStep): Promise<Cleared> {
    const { answer, followUps } = await this.#questionTraced(ground.run, claim, runStep);
    switch (answer.kind) {
      case 'returned':
        return this.#conclude(ground, claim, answer.value, followUps);
      case 'threw':
        return this.#unresolved(ground, claim, 'failed', answer.error);
      case 'abandoned':
        return answer.by === 'lease_lost'
          ? { kind: 'ended', result: await this.recorder.fenced(ground.run, claim) }
          : this.#unresolved(ground, claim, answer.by, answer.error);
      default:
        return answer satisfies never;
    }
  }

  /**
   * Records that there is no answer, whether or not the service was asked. The schedule says when to ask again, or that
   * a person must find out.
   */
  unresolved(ground: Ground, claim: Claim, reason: string, error?: unknown): Promise<AttemptResult> {
    const reconcileInMs = nextQuestionMs(rulesOf(ground.run).schedule, claim.doubtAgeMs ?? 0);
    return this.recorder.unresolved(ground, claim, reason, error, reconcileInMs);
  }

  async #questionTraced(run: OperationRun, claim: Claim, runStep: RunStep): Promise<Questioned> {
    const { span, subject, identified } = run;
    if (span === undefined) return this.#question(run, claim, runStep);
    return span.inside(`reconcile ${subject.queue}`, identityAttributes(identified), async (own) => {
      const questioned = await this.#question({ ...run, span: own }, claim, runStep);
      tellAnswer(own, questioned.answer);
      return questioned;
    });
  }

  async #question(run: OperationRun, claim: Claim, runStep: RunStep): Promise<Questioned> {
    const question = new HandlerRun(() => undefined);
    const { handlerRun, rules, reconcile } = run;
    const leave = question.endWithRun(handlerRun, { hasOwnLease: false });
    try {
      const frame = new OperationFrame({ ...run, handlerRun: question }, claim, undefined, runStep);
      // The dependency has already let the attempt through, and the question is part of it.
      enterOperation(frame, { dependency: rules.dependency });
      const answer = await question.run(async () => reconcile?.(frame), rulesOf(run).timeoutMs);
      return { answer, followUps: frame.followUps };
    } finally {
      leave();
    }
  }

  async #conclude(
    ground: Ground,
    claim: Claim,
    answer: unknown,
    followUps: readonly RequestedOperation[],
  ): Promise<Cleared> {
    const verdict = readAnswer(answer);
    switch (verdict?.kind) {
      case 'applied':
        return { kind: 'ended', result: await this.#apply(ground.run, claim, verdict, followUps) };
      case 'not_applied':
        return this.#start(ground, claim);
      case 'unknown':
        return this.#unresolved(ground, claim, 'unknown');
      default:
        return this.#unresolved(ground, claim, 'no_answer', new NoAnswerError());
    }
  }

  async #apply(
    run: OperationRun,
    claim: Claim,
    { result: value }: Applied,
    followUps: readonly RequestedOperation[],
  ): Promise<AttemptResult> {
    const { claim: claimRules, results } = run.rules;
    const result = keepResult(value, results);
    const write = async (): Promise<[Recorded, () => void]> =>
      this.database.inTransaction(async (connection) => {
        const recorded = await this.outcomes.apply(connection, claimRules, claim, result);
        if (recorded === 'lost') return [recorded, () => undefined];
        return [recorded, await this.followUps.write(connection, followUps, run.runId)];
      }, 'record');
    const [recorded, tell] = await withRetry(recordPatienceMs(claimRules.leaseMs), write);
    if (recorded === 'lost') return this.recorder.fenced(run, claim);
    tell();
    if (followUps.length > 0) this.due.wake();
    this.reporter.tell(run, { kind: 'reconciled', attempt: claim.attempt, verdict: 'applied' });
    this.reporter.completed(run, claim, performance.now(), result.problem);
    return { kind: 'completed', result: result.value, degraded: undefined };
  }

  async #start(ground: Ground, claim: Claim): Promise<Cleared> {
    const { run } = ground;
    const { lateArrivalMs } = rulesOf(run).schedule;
    if (claim.doubtAgeMs !== undefined && claim.doubtAgeMs < lateArrivalMs)
      return this.#unresolved(ground, claim, 'may_arrive_late');
    const { claim: claimRules } = run.rules;
    const started = await withRetry(claimRules.leaseMs, () => this.outcomes.start(claim, claimRules));
    if (started === 'lost') return { kind: 'ended', result: await this.recorder.fenced(run, claim) };
    this.reporter.tell(run, { kind: 'reconciled', attempt: claim.attempt, verdict: 'not_applied' });
    return { kind: 'run', claim: started };
  }

  async #unresolved(ground: Ground, claim: Claim, reason: string, error?: unknown): Promise<Cleared> {
    return { kind: 'ended', result: await this.unresolved(ground, claim, reason, error) };
  }
}

function rulesOf({ rules: { reconcile } }: OperationRun): ReconcileRules {
  if (reconcile === undefined)
    throw new UsageError('This operation has no reconcile(), so nobody can be asked about it.');
  return reconcile;
}

function tellAnswer(span: OperationSpan, answer: HandlerResult): void {
  switch (answer.kind) {
    case 'returned':
      return span.answered(readAnswer(answer.value)?.kind ?? 'no_answer');
    case 'threw':
      return span.unanswered('failed', answer.error);
    case 'abandoned':
      return span.unanswered(answer.by, answer.error);
    default:
      return answer satisfies never;
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
