import type { Ending } from '../attempt/ending.js';
import type { Decision } from './decide.js';
import type { Settlement } from './settlement.js';

/** What BullMQ is told about how a delivery ended. Pure. */
export function settlementOf(ending: Ending, random: () => number): Settlement {
  switch (ending.kind) {
    case 'completed':
    case 'replayed':
      return { kind: 'ack', result: ending.result };
    case 'failed':
      return ofDecision(ending.decision, ending.error);
    case 'conflict':
    case 'dead':
    case 'in_doubt':
    case 'expired':
    case 'unstorable':
      return { kind: 'fail', error: ending.error };
    case 'deferred':
      // A tenth of jitter, so that deliveries that wait for one lease do not come back in one moment; a second is enough.
      return {
        kind: 'defer',
        delayMs: ending.delayMs + random() * Math.min(ending.delayMs / 10, MAX_JITTER_MS),
      };
    case 'handed_back':
      return { kind: 'hand_back' };
    default:
      return ending satisfies never;
  }
}

function ofDecision(decision: Decision, error: unknown): Settlement {
  if (decision.status === 'retrying') return { kind: 'retry', error, delayMs: decision.delayMs };
  // The service is asked with the next delivery, which costs no attempt.
  if (decision.status === 'in_doubt' && decision.askInMs !== undefined)
    return { kind: 'defer', delayMs: decision.askInMs };
  return { kind: 'fail', error };
}

const MAX_JITTER_MS = 1000;
