import type { JobEvent } from '../events/job-events.js';
import type { OperationIdentity } from '../operation/identity.js';
import type { DeadLetterResolution } from '../operation/reasons.js';
import { lookedUpByKey, type RunStatement, statement } from '../ledger/postgres/statement.js';
import type { Case, LetterFacts, OperationFacts } from './judge-letter.js';
import type { ReservedRedrive } from './bulk-redrive.store.js';

/*
 * Locks and reads the rows that an action is about, so that of two concurrent actions the second sees what the first did.
 *
 * All actions take locks in one order: the bulk redrive, its letters by id, their operations by tenant and key. They
 * change a letter only when they hold all of these. A worker (FAIL, DOUBT) holds its operation when it writes a letter.
 * It does not wait for an open letter that is locked, only for one that is being changed, and the action that changes one
 * waits for no operation any more. So there is no deadlock.
 */

/** A letter as an action finds it. */
export interface LockedLetter extends LetterFacts {
  readonly id: string;
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  /** The identity under which the ledger has its operation. */
  readonly identity: OperationIdentity | null;
}

/** An operation as an action finds it. */
export interface LockedOperation extends OperationFacts, OperationIdentity {
  readonly queue: string;
  readonly jobName: string;
  readonly jobId: string;
  readonly attempts: number;
  /** The key of the operation whose step it is. */
  readonly stepOf: string | null;
}

/** The event of a letter that was closed. */
export function letterClosed(
  { id: letterId, queue, jobName, jobId, identity }: LockedLetter,
  as: DeadLetterResolution,
  actor: string,
): JobEvent {
  return { kind: 'letter_closed', queue, jobName, jobId, ...identity, letterId, as, actor };
}

export type LockedLetterCase = Case<LockedLetter, LockedOperation | null>;
export type LockedOperationCase = Case<LockedLetter | null, LockedOperation>;

/**
 * Letter `l` and operation `o` as the decision needs them; null where there is none. `startedSince` is SQL that tells
 * whether an attempt was started after the time of a report.
 */
const found = <const Since extends string>(startedSince: Since) =>
  `
  CASE WHEN l.id IS NOT NULL THEN json_build_object(
    'id', l.id, 'queue', l.queue, 'jobName', l.job_name, 'jobId', l.job_id, 'reason', l.reason,
    'identity', CASE WHEN l.tenant_id IS NOT NULL THEN
      json_build_object('tenantId', l.tenant_id, 'operationKey', l.operation_key) END,
    'isResolved', l.resolved_at IS NOT NULL,
    'hasPayload', l.payload IS NOT NULL,
    'isOfJob', l.origin = 'job') END AS letter,
  CASE WHEN o.tenant_id IS NOT NULL THEN json_build_object(
    'tenantId', o.tenant_id, 'operationKey', o.operation_key, 'queue', o.queue, 'jobName', o.job_name, 'jobId', o.job_id,
    'attempts', o.attempts, 'stepOf', o.step_of, 'status', o.status,
    'isAnotherRequest', COALESCE(o.fingerprint <> l.fingerprint, false),
    'isDoubtful', o.doubt_since IS NOT NULL,
    'isLookedUp', COALESCE(o.effect = 'reconciled' AND o.attempts > 0, false),
    'isPastDeadline', COALESCE(o.has_own_deadline AND o.deadline_at <= clock_timestamp(), false),
    'wasClaimed', o.fencing_token > 0,
    'isUnderLease', COALESCE(o.lease_expires_at > clock_timestamp(), false),
    'wasStartedSince', COALESCE(${startedSince}, false)) END AS operation` as const;

/**
 * Locks letters and the operations that have their keys. *No row*: there is no such letter. The operation that has a
 * conflicting letter's key belongs to another request, and is not touched.
 */
const LOCK_LETTERS = statement(
  'lock_letters',
  `
WITH permit AS (
  SELECT id FROM {schema}.dead_letter_redrives WHERE id = :redriveId AND status = 'running' AND runner_id = :runnerId FOR SHARE
), letter AS (
  SELECT * FROM {schema}.dead_letters
  WHERE id = ANY (:letterIds::uuid[]) AND (:redriveId::uuid IS NULL OR (redrive_id = :redriveId AND EXISTS (SELECT FROM permit)))
  ORDER BY id
  FOR UPDATE
), operation AS (
  SELECT o.*
  FROM {schema}.job_outcomes o JOIN letter l ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
  WHERE l.reason <> 'idempotency_conflict' AND ${lookedUpByKey('l.operation_key')}
  ORDER BY o.tenant_id, o.operation_key
  FOR UPDATE OF o
)
SELECT ${found('false')}
FROM letter l LEFT JOIN operation o ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
`,
);

/** Reads the same of one letter, without a lock. */
const PEEK_AT_LETTER = statement(
  'peek_at_letter',
  `
SELECT ${found('false')}
FROM {schema}.dead_letters l
LEFT JOIN {schema}.job_outcomes o
  ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key AND l.reason <> 'idempotency_conflict'
WHERE l.id = :letterId
`,
);

/** Locks an operation and its own open letter, the letter first. *No row*: there is no such operation. */
const LOCK_OPERATION = statement(
  'lock_operation',
  `
WITH letter AS (
  SELECT * FROM {schema}.dead_letters
  WHERE tenant_id = :tenantId AND operation_key = :operationKey AND resolved_at IS NULL AND reason NOT IN ('idempotency_conflict', 'expired')
  FOR UPDATE
), operation AS (
  SELECT * FROM {schema}.job_outcomes
  WHERE tenant_id = :tenantId AND operation_key = :operationKey AND (SELECT count(*) FROM letter) >= 0
  FOR UPDATE
)
SELECT ${found('o.started_at > :asOf::timestamptz')}
FROM operation o LEFT JOIN letter l ON true
`,
);

/** Locks letters. `held` is the bulk redrive on whose behalf it asks, if there is one. */
export function lockLetters(
  run: RunStatement,
  ids: readonly string[],
  held?: ReservedRedrive,
): Promise<LockedLetterCase[]> {
  return run(LOCK_LETTERS.with({ letterIds: ids, redriveId: held?.id, runnerId: held?.runnerId }));
}

/** Reads a letter for a dry run, or in a transaction that has already locked it. */
export async function peekAtLetter(run: RunStatement, id: string): Promise<LockedLetterCase | undefined> {
  return (await run<LockedLetterCase>(PEEK_AT_LETTER.with({ letterId: id })))[0];
}

export async function lockOperation(
  run: RunStatement,
  { tenantId, operationKey }: OperationIdentity,
  asOf: Date | undefined,
): Promise<LockedOperationCase | undefined> {
  return (await run<LockedOperationCase>(LOCK_OPERATION.with({ tenantId, operationKey, asOf })))[0];
}
