import type { OperationName } from '../operation/identity.js';
import type { ErrorEvidence } from '../operation/thrown.js';
import { type DeadLetterReason, type DeadLetterResolution } from '../operation/reasons.js';
import type { LedgerAction } from '../operation/ledger-action.js';
import type { RedrivePace } from './bulk-redrive.js';

/** A delivery that failed for good, with what is known about why. Times are by the database's clock. */
export interface DeadLetter {
  readonly id: string;
  readonly reason: DeadLetterReason;
  /** The same for letters of one cause; see {@link DeadLetterGroup}. */
  readonly fingerprint: string;
  /** Where the job came from. */
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  /** Undefined when the delivery had no valid identity. */
  readonly tenantId: string | undefined;
  readonly operationKey: string | undefined;
  /** For a step: the key of its operation and the step's name, by which it is looked up. `operationKey` shows both. */
  readonly stepOf?: string;
  readonly step?: string;
  readonly error: ErrorEvidence | undefined;
  readonly attempts: number;
  readonly failures: number;
  /** Since when the effect may have happened without a record of it. */
  readonly doubtSince: Date | undefined;
  readonly runId: string | undefined;
  /** The versions of the library and of Node that wrote the letter. */
  readonly versions: Readonly<Record<string, string>> | undefined;
  readonly createdAt: Date;
  /** Undefined while the letter is open. */
  readonly resolved:
    | {
        readonly at: Date;
        readonly as: DeadLetterResolution;
        readonly actor: string;
        readonly note: string;
      }
    | undefined;
}

/** A dead letter together with what the job carried. */
export interface DeadLetterWithPayload extends DeadLetter {
  /** Undefined when it could not be kept. */
  readonly payload: unknown;
}

/** Letters of one cause: same queue, reason, error class and place in the code. */
export interface DeadLetterGroup {
  readonly fingerprint: string;
  readonly queue: string;
  readonly reason: DeadLetterReason;
  readonly letters: number;
  readonly oldestAt: Date;
  readonly newestAt: Date;
  /** The newest letter of the group, as an example. */
  readonly sample: {
    readonly id: string;
    readonly error: Pick<ErrorEvidence, 'name' | 'message'> | undefined;
  };
}

/** Selects letters. All conditions must hold; without any, all open letters match. */
export interface DeadLetterFilter {
  readonly queue?: string;
  readonly tenantId?: string;
  readonly reason?: DeadLetterReason;
  /** The letters of one {@link DeadLetterGroup}. */
  readonly fingerprint?: string;
  /** The letters of that operation and of its steps. */
  readonly operationKey?: string;
  /** Written at or after that time. */
  readonly from?: Date;
  /** Written before that time. */
  readonly until?: Date;
}

/** Names a letter: by its id, or by the operation whose open letter it is. */
export type DeadLetterRef = string | OperationName;

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
