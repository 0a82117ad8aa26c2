import type { LedgerAction } from '../operation/ledger-action.js';
import type { DeadLetter } from './dead-letter.js';
import type { RedrivePace } from './bulk-redrive.js';

/** How one letter is redriven, or resolved as not applied. */
export interface RedriveOptions extends LedgerAction {
  /** A deadline that replaces the producer's, which may have passed. */
  readonly deadline?: Date;
}

/** Options of a bulk redrive. */
export interface RedriveManyOptions extends LedgerAction, Partial<RedrivePace> {}

/**
 * What became of one letter, or would in a dry run. `redriven`: its operation runs again. `completed`: its operation had
 * already completed, so nothing runs. `applied`: its operation is completed now.
 */
export interface LetterResult {
  readonly letterId: string;
  readonly outcome: 'redriven' | 'completed' | 'applied' | 'discarded';
  readonly dryRun: boolean;
}

/** What a bulk redrive has started, or would start in a dry run. */
export interface RedrivePlan {
  /** Undefined in a dry run. */
  readonly redriveId: string | undefined;
  readonly letters: number;
  /** Letters that match but need a decision of their own: in doubt, expired, in conflict, or without an identity. */
  readonly leftOut: number;
  readonly dryRun: boolean;
}

/** A page of letters. */
export interface DeadLetterPage {
  readonly letters: readonly DeadLetter[];
  /** Pass it to the next call. Undefined on the last page. */
  readonly next: string | undefined;
}
