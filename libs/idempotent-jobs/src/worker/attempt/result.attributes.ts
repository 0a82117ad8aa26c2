import { type AttemptResult, causeOf } from './attempt-result.js';
import { errorTypeOf } from '../../tracing/attributes.js';
import type { SpanAttributes } from '../../tracing/tracing.js';

/** How a run ended, as facts about its span. No messages: they may hold what a trace must not. */
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
        'idempotent_jobs.failure_reason': failure.code.slice(0, MAX_REASON),
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

/** What makes the span one that failed, in a word; undefined: nothing did. To be put off is no failure. */
export function whatFailed(result: AttemptResult): string | undefined {
  switch (result.kind) {
    case 'failed':
      return result.failure.code.slice(0, MAX_REASON);
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

/** A reason may come from the application's own `classify`. */
const MAX_REASON = 200;
