import type { Ending } from '../attempt/ending.js';
import { errorTypeOf } from './attributes.js';
import type { SpanAttributes } from './tracing.js';

/** How a run ended, as facts about its span. No messages: they may hold what a trace must not. */
export function endingAttributes(ending: Ending): SpanAttributes {
  switch (ending.kind) {
    case 'completed':
    case 'replayed':
      return { [OUTCOME]: ending.kind };
    case 'failed': {
      const { decision, failure, error } = ending;
      return {
        [OUTCOME]: decision.status,
        'idempotent_jobs.failure_kind': failure.kind,
        'idempotent_jobs.failure_reason': failure.reason.slice(0, MAX_REASON),
        'idempotent_jobs.decision': decision.why,
        'idempotent_jobs.delay_ms': decision.status === 'retrying' ? Math.ceil(decision.delayMs) : undefined,
        'error.type': errorTypeOf(error),
      };
    }
    case 'deferred':
      return {
        [OUTCOME]: 'deferred',
        'idempotent_jobs.deferral': ending.word,
        'idempotent_jobs.delay_ms': Math.ceil(ending.delayMs),
      };
    case 'conflict':
    case 'dead':
    case 'in_doubt':
    case 'expired':
    case 'unstorable':
      return { [OUTCOME]: ending.kind, 'error.type': errorTypeOf(ending.error) };
    case 'handed_back':
      return { [OUTCOME]: 'handed_back' };
    default:
      return ending satisfies never;
  }
}

/** What makes the span one that failed, in a word; undefined: nothing did. To be put off is no failure. */
export function whatFailed(ending: Ending): string | undefined {
  switch (ending.kind) {
    case 'failed':
      return ending.failure.reason.slice(0, MAX_REASON);
    case 'deferred':
      return ending.why === 'unavailable' ? ending.word : undefined;
    case 'conflict':
    case 'dead':
    case 'in_doubt':
    case 'expired':
    case 'unstorable':
      return ending.kind;
    case 'completed':
    case 'replayed':
    case 'handed_back':
      return undefined;
    default:
      return ending satisfies never;
  }
}

const OUTCOME = 'idempotent_jobs.outcome';

/** A reason may come from the application's own `classify`. */
const MAX_REASON = 200;
