import type { OperationStatus } from '../operation/status.js';
import type { DeadLetterResolution, DeadLetterReason } from '../operation/reasons.js';
import type { Objection } from './refusals.js';

/*
 * What becomes of a dead letter, or of an operation, when somebody from outside speaks: a person, or a webhook. Pure: the
 * caller has locked both rows, and hands over what the database says about them.
 */

/** What the decision needs to know about a letter. */
export interface LetterFacts {
  readonly isResolved: boolean;
  /** Null where the delivery had no valid identity. */
  readonly identity: object | null;
  readonly reason: DeadLetterReason;
  readonly hasPayload: boolean;
  /** A job carries its operation. Steps and calls have no job, and need no payload to be run again. */
  readonly isOfJob: boolean;
}

/** What the decision needs to know about the operation that has the letter's key. */
export interface OperationFacts {
  readonly status: OperationStatus;
  /** The key is in use by a request other than the letter's. */
  readonly isAnotherRequest: boolean;
  /** An attempt may have had its effect without a record of it. */
  readonly isDoubtful: boolean;
  /** Its effect is looked up before each attempt that follows another one, and there was one. */
  readonly isLookedUp: boolean;
  /** The deadline that its producer gave has passed. */
  readonly isPastDeadline: boolean;
  readonly wasClaimed: boolean;
  /** Somebody holds its lease, which has not run out. */
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

/** What a person wants to be done about a letter. A result is JSON text, as it is kept. `edited` runs another operation. */
export type Intent =
  | { readonly kind: 'redrive' | 'not_applied'; readonly deadline?: Date | undefined }
  | { readonly kind: 'applied'; readonly result: string | null }
  | { readonly kind: 'discard' }
  | { readonly kind: 'edited' };

/** What somebody who knows, most likely a webhook, says about an operation. */
export type Report =
  { readonly kind: 'applied'; readonly result: string | null } | { readonly kind: 'not_applied' };

/** What is to be done to the operation, and how its letter is closed. */
export type Action =
  | RunAgain
  | Complete
  /** It is dead from now on, or stays dead, and is forgotten in time. */
  | { readonly kind: 'give_up'; readonly as: 'discarded' }
  /** It stays dead, and is forgotten in time; another one runs in its place. */
  | { readonly kind: 'replace'; readonly as: 'redriven' }
  /** It is not touched, or does not exist. */
  | { readonly kind: 'leave'; readonly as: DeadLetterResolution };

/** With fresh attempts; with a doubt kept, its next claim obeys the rules of its effect. Without a deadline, the old one stays. */
export interface RunAgain {
  readonly kind: 'run_again';
  readonly as: 'redriven' | 'not_applied';
  readonly keepsDoubt: boolean;
  readonly deadline?: Date | undefined;
}

type Complete = { readonly kind: 'complete'; readonly as: 'applied'; readonly result: string | null };

/** Something stands against it. */
export type Refused = { readonly kind: 'refused'; readonly reason: Objection };

/** Nothing is to be done, and why. */
export interface Nothing {
  readonly kind: 'nothing';
  readonly reason: 'completed' | 'not_started' | 'outdated' | 'under_way' | 'dead' | 'no_doubt';
}

export type Judgement = Action | Refused;

/** Without an open letter, the operation is put back: run again with the attempts that are left. */
export type ReportJudgement = Judgement | Nothing | { readonly kind: 'put_back'; readonly as: 'not_applied' };

/** Decides about a letter. The ledger may have no operation of its key. */
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

/** Decides about an operation that somebody reports on. It may have no open letter. */
export function judgeReport({ operation, letter }: OperationCase, report: Report): ReportJudgement {
  if (operation.status === 'completed') return nothing('completed');
  if (!operation.wasClaimed) return nothing('not_started');
  if (report.kind === 'applied') return complete(report.result);
  if (operation.wasStartedSince) return nothing('outdated');
  // The attempt that runs will tell by itself.
  if (operation.status === 'running' && operation.isUnderLease) return nothing('under_way');
  if (letter !== null) return judgeReportOnLetter({ letter, operation });
  if (operation.status === 'dead') return nothing('dead');
  const isWaiting = operation.status === 'pending' || operation.status === 'retrying';
  return isWaiting && !operation.isDoubtful ? nothing('no_doubt') : { kind: 'put_back', as: 'not_applied' };
}

/** The letter is resolved as if a person did it. */
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
  // That an operation was given up does not say that nothing happened.
  const keepsDoubt = operation?.isDoubtful === true || operation?.isLookedUp === true;
  return objectionToRun(found, deadline) ?? { kind: 'run_again', as: 'redriven', keepsDoubt, deadline };
}

function judgeNotApplied(found: LetterCase, deadline?: Date): RunAgain | Refused {
  const objection = objectionToAnswer(found) ?? objectionToRun(found, deadline);
  return objection ?? { kind: 'run_again', as: 'not_applied', keepsDoubt: false, deadline };
}

function judgeDiscard({ letter: { reason }, operation }: LetterCase): Judgement {
  // The operation of that key is not the one that the letter is about.
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

/** Why the letter's operation cannot be meant. */
function objectionToIdentity({ letter, operation }: LetterCase): Refused | undefined {
  if (letter.identity === null) return refused('no_identity');
  const isConflict = letter.reason === 'idempotency_conflict' || operation?.isAnotherRequest === true;
  return isConflict ? refused('conflict') : undefined;
}

/** Why nobody can answer for the effect. A person may while it is not known whether it happened. */
function objectionToAnswer(found: LetterCase): Refused | undefined {
  const objection = objectionToIdentity(found);
  if (objection !== undefined) return objection;
  if (found.operation?.status === 'completed') return refused('has_completed');
  if (isUnderWay(found.operation)) return refused('under_way');
  return isInDoubt(found) || found.operation?.isDoubtful === true ? undefined : refused('not_in_doubt');
}

/** Why the operation cannot be run once more. */
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

/** Nobody knows whether the effect happened, also because the operation's row is gone. */
function isInDoubt({ letter: { reason }, operation }: LetterCase): boolean {
  return reason === 'expired' || (operation === null ? reason : operation.status) === 'in_doubt';
}

function complete(result: string | null): Complete {
  return { kind: 'complete', as: 'applied', result };
}

function refused(reason: Objection): Refused {
  return { kind: 'refused', reason: reason };
}

function nothing(reason: Nothing['reason']): Nothing {
  return { kind: 'nothing', reason: reason };
}
