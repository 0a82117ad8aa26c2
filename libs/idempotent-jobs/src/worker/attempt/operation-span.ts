import { MAX_FAILURE_CODE } from '../../operation/failure.js';
import { type AttemptResult, causeOf } from './attempt-result.js';
import { errorTypeOf } from '../../tracing/attributes.js';
import { orUndefined } from '../../operation/thrown.js';
import type { SpanAttributes, Tracing, TracingSpan } from '../../tracing/tracing.js';

/**
 * The span of one run of an operation: a delivery, a step or a call. Errors of the application's {@link Tracing} are
 * swallowed, so that they cannot fail an attempt.
 */
export class OperationSpan {
  constructor(
    private readonly tracing: Tracing,
    private readonly span: TracingSpan,
  ) {}

  /** The reference by which the operation's next run links to this span. */
  get reference(): string | undefined {
    return orUndefined(() => this.span.reference);
  }

  /** Links this span to the operation's last run, which the ledger remembers. */
  follows(reference: string | null): void {
    if (reference !== null) orUndefined(() => this.span.link(reference));
  }

  /** The claim was won: everything before this moment was waiting for it. */
  claimed(attempt: number, fencingToken: number): void {
    orUndefined(() => {
      this.span.set({ 'idempotent_jobs.attempt': attempt, 'idempotent_jobs.fencing_token': fencingToken });
      this.span.event('claimed', { 'idempotent_jobs.attempt': attempt });
    });
  }

  ended(result: AttemptResult): void {
    orUndefined(() => {
      this.span.set(resultAttributes(result));
      const failed = whatFailed(result);
      if (failed !== undefined) this.span.fail(failed);
    });
  }

  /** The service answered the question about a doubt. */
  answered(verdict: string): void {
    orUndefined(() => this.span.set({ 'idempotent_jobs.verdict': verdict }));
  }

  /** The question about a doubt got no answer. */
  unanswered(reason: string, error: unknown): void {
    orUndefined(() => {
      this.span.set({ 'idempotent_jobs.failure_reason': reason, 'error.type': errorTypeOf(error) });
      this.span.fail(reason);
    });
  }

  /** Runs `work` in a span inside of this one. */
  inside<T>(name: string, attributes: SpanAttributes, work: (span: OperationSpan) => Promise<T>): Promise<T> {
    return openSpan(this.tracing, name, attributes, work);
  }
}

/** Runs `work` in a span inside of whatever span is active. */
export function openSpan<T>(
  tracing: Tracing,
  name: string,
  attributes: SpanAttributes,
  work: (span: OperationSpan) => Promise<T>,
): Promise<T> {
  return tracing.span({ name, kind: 'internal', attributes }, (span) =>
    work(new OperationSpan(tracing, span)),
  );
}

/** How a run ended, as attributes of its span. Without messages: they may contain what a trace must not. */
export function resultAttributes(result: AttemptResult): SpanAttributes {
  switch (result.kind) {
    case 'completed':
    case 'replayed':
      return { [OUTCOME]: result.kind };
    case 'failed': {
      const { nextStep: decision, failure, error } = result;
      return {
        [OUTCOME]: decision.status,
        'idempotent_jobs.failure_kind': failure.kind,
        'idempotent_jobs.failure_reason': failure.code.slice(0, MAX_FAILURE_CODE),
        'idempotent_jobs.decision': decision.decision,
        'idempotent_jobs.delay_ms': decision.status === 'retrying' ? Math.ceil(decision.delayMs) : undefined,
        'error.type': errorTypeOf(error),
      };
    }
    case 'deferred':
      return {
        [OUTCOME]: 'deferred',
        'idempotent_jobs.deferral': result.deferral,
        'idempotent_jobs.delay_ms': Math.ceil(result.delayMs),
      };
    case 'refused':
      return { [OUTCOME]: result.reason, 'error.type': errorTypeOf(result.error) };
    case 'handed_back':
      return { [OUTCOME]: 'handed_back' };
    default:
      return result satisfies never;
  }
}

/**
 * Why the span counts as failed, in a word. Undefined when it did not fail. A deferral is no failure, unless the ledger
 * was unavailable.
 */
export function whatFailed(result: AttemptResult): string | undefined {
  switch (result.kind) {
    case 'failed':
      return result.failure.code.slice(0, MAX_FAILURE_CODE);
    case 'deferred':
      return causeOf(result.deferral) === 'unavailable' ? result.deferral : undefined;
    case 'refused':
      return result.reason;
    case 'completed':
    case 'replayed':
    case 'handed_back':
      return undefined;
    default:
      return result satisfies never;
  }
}

const OUTCOME = 'idempotent_jobs.outcome';
