import type { Ending } from '../attempt/ending.js';
import type { Settlement } from './settlement.js';

/** What BullMQ is told about how a delivery ended. Pure. */
export function settlementOf(ending: Ending, random: () => number): Settlement {
  switch (ending.kind) {
    case 'completed':
    case 'replayed':
      return { kind: 'ack', result: ending.result };
    case 'failed':
      return ending.decision.status === 'retrying'
        ? { kind: 'retry', error: ending.error, delayMs: ending.decision.delayMs }
        : { kind: 'fail', error: ending.error };
    case 'conflict':
    case 'dead':
    case 'in_doubt':
    case 'expired':
      return { kind: 'fail', error: ending.error };
    case 'deferred':
      // A tenth of jitter, so that deliveries that wait for one lease do not come back in one moment; a second is enough.
      return {
        kind: 'defer',
        delayMs: ending.delayMs + random() * Math.min(ending.delayMs / 10, MAX_JITTER_MS),
      };
    case 'handed_back':
      return { kind: 'hand_back', error: ending.error };
    default:
      return ending satisfies never;
  }
}

const MAX_JITTER_MS = 1000;
