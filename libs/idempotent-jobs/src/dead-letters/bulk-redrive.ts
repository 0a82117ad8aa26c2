import type { DeadLetterFilter } from './dead-letter.js';

/** A bulk redrive: many letters of one source queue. Times are by the database's clock. */
export interface Redrive {
  readonly id: string;
  readonly queue: string;
  /** `stopped`: too many failed again. `cancelled`: an operator ended it. */
  readonly status: 'running' | 'completed' | 'stopped' | 'cancelled';
  /** Why it ended before all its letters were done. */
  readonly endedBecause: string | undefined;
  readonly filter: Omit<DeadLetterFilter, 'queue'>;
  readonly actor: string;
  readonly note: string;
  /** How many letters it took on. */
  readonly letters: number;
  readonly progress: RedriveProgress;
  readonly createdAt: Date;
  readonly endedAt: Date | undefined;
}

/** The progress of a bulk redrive. */
export interface RedriveProgress {
  /** Letters that are not redriven yet. */
  readonly left: number;
  /** Operations brought back. */
  readonly redriven: number;
  /** Of these, how many have not ended yet. */
  readonly underWay: number;
  /** Of these, how many died or fell in doubt again. */
  readonly failed: number;
}

/** How carefully a bulk redrive proceeds. */
export interface RedrivePace {
  /** Letters a second, at most 500. Default 10: what failed together must not come back together. */
  readonly ratePerSecond: number;
  /** How many letters go first. They must have ended before the others follow. Default 5. */
  readonly canary: number;
  /** The share of operations failing again, from 0 to 1, above which it stops by itself. Default 0.2. */
  readonly maxFailureShare: number;
}

export const DEFAULT_PACE: RedrivePace = { ratePerSecond: 10, canary: 5, maxFailureShare: 0.2 };
export const MAX_RATE_PER_SECOND = 500;

/** What a bulk redrive does next. */
export type RedriveStep =
  | { readonly kind: 'redrive'; readonly letters: number }
  /** The canaries have not all ended. */
  | { readonly kind: 'wait' }
  | { readonly kind: 'complete' }
  | { readonly kind: 'stop'; readonly because: string };

/**
 * Decides what a redrive does next. Pure. `allowance` is how many letters the rate allows now.
 *
 * Too many failures stop it only once as many operations have ended as there are canaries (or letters, if these are
 * fewer): a share of one or two says nothing.
 */
export function nextStep(
  { left, redriven, underWay, failed }: RedriveProgress,
  { canary, maxFailureShare }: RedrivePace,
  allowance: number,
): RedriveStep {
  const ended = redriven - underWay;
  const isTelling = ended > 0 && ended >= Math.min(Math.max(canary, 1), redriven + left);
  if (left > 0 && isTelling && failed / ended > maxFailureShare) {
    const percent = Math.round((100 * failed) / ended);
    return {
      kind: 'stop',
      because: `${failed} of ${ended} redriven operations failed again (${percent} %, more than ${Math.round(100 * maxFailureShare)} %)`,
    };
  }
  if (left === 0) return { kind: 'complete' };
  if (redriven < canary) return take(Math.min(canary - redriven, left, allowance));
  if (ended < Math.min(canary, redriven)) return { kind: 'wait' };
  return take(Math.min(left, allowance));
}

function take(letters: number): RedriveStep {
  return letters < 1 ? { kind: 'wait' } : { kind: 'redrive', letters: Math.floor(letters) };
}
