import { type AttemptResult, causeOf } from './attempt-result.js';
import { errorTypeOf } from '../../tracing/attributes.js';
import type { SpanAttributes } from '../../tracing/tracing.js';

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
    case 'conflict':
    case 'dead':
    case 'in_doubt':
    case 'expired':
    case 'unstorable':
      return { [OUTCOME]: result.kind, 'error.type': errorTypeOf(result.error) };
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
    case 'conflict':
    case 'dead':
    case 'in_doubt':
    case 'expired':
    case 'unstorable':
      return result.kind;
    case 'completed':
    case 'replayed':
    case 'handed_back':
      return undefined;
    default:
      return result satisfies never;
  }
}

const OUTCOME = 'idempotent_jobs.outcome';

/** A failure code may come from the application's own `classify`. */
const MAX_FAILURE_CODE = 200;
