import type { OperationStatus } from '../operation/status.js';
import type { DeadLetterResolution, DeadLetterReason } from '../operation/reasons.js';
import { DeadLetterRefusedError } from '../operation/errors.js';

/*
 * Decides what happens to a dead letter, or to an operation, when an operator or a webhook reports on it. Pure: the
 * caller has locked both rows, and passes in what the database says about them.
 */

/** What the decision needs to know about a letter. */
export interface LetterFacts {
  readonly isResolved: boolean;
  /** Null where the delivery had no valid identity. */
  readonly identity: object | null;
  readonly reason: DeadLetterReason;
  readonly hasPayload: boolean;
  /** A job carries its operation. Steps and calls have no job, and need no payload to run again. */
  readonly isOfJob: boolean;
}

/** What the decision needs to know about the operation that has the letter's key. */
export interface OperationFacts {
  readonly status: OperationStatus;
  /** The key is in use by a request other than the letter's. */
  readonly isAnotherRequest: boolean;
  /** An attempt may have had its effect without a record of it. */
  readonly isDoubtful: boolean;
  /** Its effect is looked up before every attempt but the first, and there has been an attempt. */
  readonly isLookedUp: boolean;
  /** The deadline that its producer gave has passed. */
  readonly isPastDeadline: boolean;
  readonly wasClaimed: boolean;
  /** A worker holds its lease, which has not expired. */
  readonly isUnderLease: boolean;
  /** An attempt was started after the time that a report is about. */
  readonly wasStartedSince: boolean;
}

/** A letter, and the operation of its key. */
export interface Case<Letter, Operation> {
  readonly letter: Letter;
  readonly operation: Operation;
}

type LetterCase = Case<LetterFacts, OperationFacts | null>;
type OperationCase = Case<LetterFacts | null, OperationFacts>;

/**
 * What an operator wants to do with a letter. A result is JSON text, as it is stored. `edited` runs another operation.
 */
export type Intent =
  | { readonly kind: 'redrive' | 'not_applied'; readonly deadline?: Date | undefined }
  | { readonly kind: 'applied'; readonly result: string | null }
  | { readonly kind: 'discard' }
  | { readonly kind: 'edited' };

/** What a party that knows the outcome, most likely a webhook, says about an operation. */
export type Report =
  { readonly kind: 'applied'; readonly result: string | null } | { readonly kind: 'not_applied' };

/** What is done to the operation, and how its letter is closed. */
type Action =
  | RunAgain
  | Complete
  /** It becomes or stays dead, and its row is pruned in time. */
  | { readonly kind: 'give_up'; readonly as: 'discarded' }
  /** It stays dead, and its row is pruned in time; another operation runs in its place. */
  | { readonly kind: 'replace'; readonly as: 'redriven' }
  /** It is not changed, or does not exist. */
  | { readonly kind: 'leave'; readonly as: DeadLetterResolution };

/**
 * The operation runs again with fresh attempts. If it keeps its doubt, its next claim obeys the rules of its effect.
 * Without a new deadline it keeps the old one.
 */
interface RunAgain {
  readonly kind: 'run_again';
  readonly as: 'redriven' | 'not_applied';
  readonly keepsDoubt: boolean;
  readonly deadline?: Date | undefined;
}

type Complete = { readonly kind: 'complete'; readonly as: 'applied'; readonly result: string | null };

/** The action is refused. */
export type Refused = { readonly kind: 'refused'; readonly reason: Objection };

/** Nothing is to be done; `reason` says why. */
export interface Nothing {
  readonly kind: 'nothing';
  readonly reason: 'completed' | 'not_started' | 'outdated' | 'under_way' | 'dead' | 'no_doubt';
}

export type Judgement = Action | Refused;

/** `put_back` is for an operation without an open letter: it runs again with the attempts that are left. */
export type ReportJudgement = Judgement | Nothing | { readonly kind: 'put_back'; readonly as: 'not_applied' };

/** Decides about a letter. The ledger may have no operation under its key. */
export function judge(found: LetterCase, intent: Intent): Judgement {
  if (found.letter.isResolved) return refused('resolved');
  switch (intent.kind) {
    case 'redrive':
      return judgeRedrive(found, intent.deadline);
    case 'not_applied':
      return judgeNotApplied(found, intent.deadline);
    case 'applied':
      return objectionToAnswer(found) ?? complete(intent.result);
    case 'discard':
      return judgeDiscard(found);
    case 'edited':
      return judgeEdit(found);
    default:
      return intent satisfies never;
  }
}

/** Decides about an operation that a report is about. It may have no open letter. */
export function judgeReport({ operation, letter }: OperationCase, report: Report): ReportJudgement {
  if (operation.status === 'completed') return nothing('completed');
  if (!operation.wasClaimed) return nothing('not_started');
  if (report.kind === 'applied') return complete(report.result);
  if (operation.wasStartedSince) return nothing('outdated');
  // The running attempt will record its outcome itself.
  if (operation.status === 'running' && operation.isUnderLease) return nothing('under_way');
  if (letter !== null) return judgeReportOnLetter({ letter, operation });
  if (operation.status === 'dead') return nothing('dead');
  const isWaiting = operation.status === 'pending' || operation.status === 'retrying';
  return isWaiting && !operation.isDoubtful ? nothing('no_doubt') : { kind: 'put_back', as: 'not_applied' };
}

/** Resolves the letter as if an operator had done it. */
function judgeReportOnLetter(found: LetterCase): Judgement | Nothing {
  const judgement = judgeNotApplied(found);
  if (judgement.kind === 'refused' && judgement.reason === 'under_way') return nothing('under_way');
  if (judgement.kind === 'refused' && judgement.reason === 'not_in_doubt') return nothing('dead');
  return judgement;
}

function judgeRedrive(found: LetterCase, deadline: Date | undefined): Judgement {
  const { operation } = found;
  const objection = objectionToIdentity(found);
  if (objection !== undefined) return objection;
  if (operation?.status === 'completed') return { kind: 'leave', as: 'completed' };
  if (isUnderWay(operation)) return refused('under_way');
  if (isInDoubt(found)) return refused('in_doubt');
  // That an operation was given up does not mean that its effect did not happen.
  const keepsDoubt = operation?.isDoubtful === true || operation?.isLookedUp === true;
  return objectionToRun(found, deadline) ?? { kind: 'run_again', as: 'redriven', keepsDoubt, deadline };
}

function judgeNotApplied(found: LetterCase, deadline?: Date): RunAgain | Refused {
  const objection = objectionToAnswer(found) ?? objectionToRun(found, deadline);
  return objection ?? { kind: 'run_again', as: 'not_applied', keepsDoubt: false, deadline };
}

function judgeDiscard({ letter: { reason }, operation }: LetterCase): Judgement {
  // The letter is about another operation than the one that has its key.
  const isOfAnother = reason === 'idempotency_conflict' || reason === 'expired';
  const isOver = operation?.status === 'dead' || operation?.status === 'in_doubt';
  return { kind: isOver && !isOfAnother ? 'give_up' : 'leave', as: 'discarded' };
}

function judgeEdit({ letter, operation }: LetterCase): Judgement {
  const own = letter.reason === 'idempotency_conflict' ? null : operation;
  if (own?.status === 'completed') return refused('has_completed');
  if (isUnderWay(own)) return refused('under_way');
  if (letter.reason === 'in_doubt' || isInDoubt({ letter, operation: own })) return refused('in_doubt');
  return { kind: own === null ? 'leave' : 'replace', as: 'redriven' };
}

/** The reason why the action cannot concern the letter's operation. */
function objectionToIdentity({ letter, operation }: LetterCase): Refused | undefined {
  if (letter.identity === null) return refused('no_identity');
  const isConflict = letter.reason === 'idempotency_conflict' || operation?.isAnotherRequest === true;
  return isConflict ? refused('conflict') : undefined;
}

/** The reason why the operator cannot decide whether the effect happened. They can while that is not known. */
function objectionToAnswer(found: LetterCase): Refused | undefined {
  const objection = objectionToIdentity(found);
  if (objection !== undefined) return objection;
  if (found.operation?.status === 'completed') return refused('has_completed');
  if (isUnderWay(found.operation)) return refused('under_way');
  return isInDoubt(found) || found.operation?.isDoubtful === true ? undefined : refused('not_in_doubt');
}

/** The reason why the operation cannot run again. */
function objectionToRun({ letter, operation }: LetterCase, deadline: Date | undefined): Refused | undefined {
  if (letter.isOfJob && !letter.hasPayload) return refused('no_payload');
  return deadline === undefined && operation?.isPastDeadline === true
    ? refused('deadline_passed')
    : undefined;
}

const IS_UNDER_WAY: Readonly<Record<OperationStatus, boolean>> = {
  pending: true,
  running: true,
  retrying: true,
  in_doubt: false,
  completed: false,
  dead: false,
};

function isUnderWay(operation: OperationFacts | null): boolean {
  return operation !== null && IS_UNDER_WAY[operation.status];
}

/** Whether the effect may have happened without a record of it, also because the operation's row is gone. */
function isInDoubt({ letter: { reason }, operation }: LetterCase): boolean {
  return reason === 'expired' || (operation === null ? reason : operation.status) === 'in_doubt';
}

function complete(result: string | null): Complete {
  return { kind: 'complete', as: 'applied', result };
}

function refused(reason: Objection): Refused {
  return { kind: 'refused', reason };
}

function nothing(reason: Nothing['reason']): Nothing {
  return { kind: 'nothing', reason };
}

/** The reasons for which an action on a letter or a redrive is refused. */
type Refusal = keyof typeof REASONS;

/** The reasons that lie in the letter and its operation. */
type Objection = Exclude<Refusal, 'key_taken' | 'redrive_ended'>;

/** For each reason: what is wrong, and what can be done instead. */
const REASONS = {
  resolved: 'it is resolved already',
  no_identity: 'it has no tenant or operation key. Give it one by hand with redriveEdited(), or discard it',
  conflict:
    'its key belongs to another request, which is untouched. Give it a key of its own with redriveEdited(), or discard it',
  under_way: 'its operation is under way',
  in_doubt: 'nobody knows whether its effect happened. Find out, and resolve it as applied or as not applied',
  not_in_doubt: 'its operation is not in doubt: its effect did not happen. Redrive it, or discard it',
  has_completed: 'its operation has completed. Redrive the letter, which closes it and runs nothing',
  no_payload: 'its payload was not kept. Give one with redriveEdited(), or discard it',
  deadline_passed: 'the deadline its producer gave has passed. Give another: { deadline }',
  key_taken:
    'an operation of that key exists already. Look at it; then give another key, or discard the letter',
  redrive_ended: 'it is not running any more',
} as const;

export function refusal(id: string, reason: Refusal): DeadLetterRefusedError {
  return new DeadLetterRefusedError(reason, `${id}: ${REASONS[reason]}. Nothing was changed.`, { id });
}

export function redriveRunning(queue: string): DeadLetterRefusedError {
  return new DeadLetterRefusedError(
    'redrive_running',
    `A redrive of queue "${queue}" is running, and only one may run at a time. Wait for it, or cancel it. Nothing was changed.`,
    { queue },
  );
}
