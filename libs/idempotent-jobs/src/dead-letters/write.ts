import { jobIdOf, type OperationIdentity } from '../operation/identity.js';
import type { Author } from '../operation/ledger-action.js';
import { lookedUpByKey, type RunStatement, statement } from '../ledger/postgres/statement.js';
import { audit } from '../ledger/record/audit.js';
import type { Retention } from '../ledger/retention.options.js';
import type { Judgement, Nothing, Refused, ReportJudgement } from './judge-letter.js';
import type { LockedLetter, LockedLetterCase, LockedOperationCase } from './lock.js';
import { COMPLETED } from '../ledger/claim/complete.statement.js';

/* Writes what was decided about letters and operations. The same transaction has locked both; nothing is decided here. */

/** Raises the fencing token, so that a worker that still runs the operation can write nothing. */
const TAKEN_BACK = `fencing_token = o.fencing_token + 1, lease_expires_at = NULL, reconcile_due_at = NULL`;

/** A suffix that makes the job id new, since BullMQ may still hold the old one. */
const LIFE = `'-' || to_hex((EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint)`;

/**
 * When an operation that ends now may be pruned. `ms` is what its queue `q` has set; where it has set nothing,
 * `:retentionMs` holds.
 */
const keptUntil = <const Ms extends string>(ms: Ms, queue: string) =>
  `clock_timestamp() + interval '1 millisecond' * COALESCE(
    (SELECT ${ms} FROM {schema}.job_queues q WHERE q.queue = ${queue}), :retentionMs::float8)` as const;

const KEPT_MS = 'completed_retention_ms';
const KEPT_LIKE_LETTERS_MS = 'GREATEST(letter_retention_ms, completed_retention_ms)';

/**
 * Runs letters' operations again.
 *
 * Only a job is put on its queue again. A step runs with the operation that it belongs to, a call when a caller makes it
 * again.
 *
 * Reset: attempts and failures, the error, a deadline that followed from the time budget. Kept: key, tenant, priority, a
 * start time still to come, the producer's own deadline. With a doubt the operation comes back as `retrying`, so that its
 * next claim obeys the rules of its effect.
 */
const RUN_AGAIN = statement(
  'run_again',
  `
UPDATE {schema}.job_outcomes o SET
  ${TAKEN_BACK},
  status           = CASE WHEN a.keeps_doubt THEN 'retrying' ELSE 'pending' END,
  job_id           = a.job_id_stem || ${LIFE},
  redrives         = o.redrives + 1,
  redriven_from    = l.id,
  doubt_since      = CASE WHEN a.keeps_doubt THEN COALESCE(o.doubt_since, o.started_at) END,
  doubted_at       = CASE WHEN a.keeps_doubt THEN o.doubted_at END,
  repeatable_until = CASE WHEN a.keeps_doubt THEN o.repeatable_until END,
  deadline_at      = COALESCE(:deadline::timestamptz, CASE WHEN o.has_own_deadline THEN o.deadline_at END),
  has_own_deadline = o.has_own_deadline OR :deadline IS NOT NULL,
  payload          = CASE WHEN o.origin = 'job' THEN l.payload END,
  dispatch_due_at  = CASE WHEN o.origin = 'job' THEN clock_timestamp() END,
  attempts = 0, failures = 0, dispatches = 0, run_id = NULL, error = NULL, settled_at = NULL, expires_at = NULL
FROM unnest(:letterId::uuid[], :jobIdStem::text[], :keepsDoubt::boolean[]) AS a (letter_id, job_id_stem, keeps_doubt)
JOIN {schema}.dead_letters l ON l.id = a.letter_id
WHERE o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key AND ${lookedUpByKey('l.operation_key')}
`,
);

/**
 * The same for operations whose rows were pruned, or removed by hand. A letter whose id is not returned has an operation
 * again: a delivery was faster, and is running it.
 */
const MAKE_AGAIN = statement(
  'make_again',
  `
INSERT INTO {schema}.job_outcomes (
  tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, fencing_token, redrives, redriven_from, payload,
  deadline_at, has_own_deadline, trace_context, step_of, step, dispatch_due_at
)
SELECT l.tenant_id, l.operation_key, l.origin, l.queue, l.job_name, a.job_id_stem || ${LIFE}, l.fingerprint, 'pending', l.fencing_token,
       1, l.id, CASE WHEN l.origin = 'job' THEN l.payload END,
       :deadline, :deadline::timestamptz IS NOT NULL, l.trace_context, l.step_of, l.step,
       CASE WHEN l.origin = 'job' THEN clock_timestamp() END
FROM unnest(:letterId::uuid[], :jobIdStem::text[]) AS a (letter_id, job_id_stem)
JOIN {schema}.dead_letters l ON l.id = a.letter_id
ON CONFLICT (tenant_id, operation_key) DO NOTHING
RETURNING redriven_from AS id
`,
);

/**
 * Completes an operation because an operator or a webhook says that its effect happened. From then on it is replayed like
 * any other.
 */
const COMPLETE_BY_WORD = statement(
  'complete_by_word',
  `
UPDATE {schema}.job_outcomes o SET
  ${COMPLETED}, fencing_token = o.fencing_token + 1, result = :result::json, result_omitted = NULL,
  expires_at = ${keptUntil(KEPT_MS, 'o.queue')}
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey
`,
);

/**
 * The same for an operation whose row is gone. *No row*: a delivery has made the row in the meantime, and is running it.
 */
const RECREATE_COMPLETED = statement(
  'recreate_completed',
  `
INSERT INTO {schema}.job_outcomes (
  tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, fencing_token, result, step_of, step, settled_at,
  expires_at
)
SELECT l.tenant_id, l.operation_key, l.origin, l.queue, l.job_name, l.job_id, l.fingerprint, 'completed', l.fencing_token + 1, :result::json,
       l.step_of, l.step, clock_timestamp(), ${keptUntil(KEPT_MS, 'l.queue')}
FROM {schema}.dead_letters l WHERE l.id = :letterId
ON CONFLICT (tenant_id, operation_key) DO NOTHING
RETURNING true
`,
);

/**
 * Makes an operation dead, or leaves it so. Its row is kept as long as its letter and as a completed one, so that no
 * stray retry runs it.
 */
const GIVE_UP = statement(
  'give_up',
  `
UPDATE {schema}.job_outcomes o SET
  ${TAKEN_BACK}, status = 'dead', payload = NULL, dispatch_due_at = NULL,
  settled_at = COALESCE(o.settled_at, clock_timestamp()),
  expires_at = ${keptUntil(KEPT_LIKE_LETTERS_MS, 'o.queue')}
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey
`,
);

/**
 * Makes an operation pending: its effect did not happen, and it may run again with the attempts that are left. Its next
 * job gets a new id, since BullMQ has delayed the old one until the next lookup.
 */
const PUT_BACK = statement(
  'put_back',
  `
UPDATE {schema}.job_outcomes o SET
  ${TAKEN_BACK}, status = 'pending', doubt_since = NULL, doubted_at = NULL, repeatable_until = NULL, expires_at = NULL,
  available_at = NULL,
  job_id = CASE WHEN o.payload IS NULL THEN o.job_id ELSE :jobIdStem || ${LIFE} END,
  dispatch_due_at = CASE WHEN o.payload IS NOT NULL THEN clock_timestamp() END
WHERE o.tenant_id = :tenantId AND o.operation_key = :operationKey
`,
);

/**
 * Makes operations due at once whose handlers wait for steps that have changed. The job id is new, since BullMQ has
 * delayed the old one; its first 46 characters are derived from tenant and key. SKIP LOCKED: an operation that is running
 * now may itself wait for the step, and will find it changed.
 */
const WAKE = statement(
  'wake',
  `
UPDATE {schema}.job_outcomes p SET
  available_at    = clock_timestamp(),
  dispatch_due_at = clock_timestamp(),
  job_id          = left(p.job_id, 46) || ${LIFE}
FROM (
  SELECT w.tenant_id, w.operation_key
  FROM {schema}.job_outcomes w
  JOIN unnest(:tenantId::text[], :stepOf::text[]) AS s (tenant_id, step_of) ON w.tenant_id = s.tenant_id AND w.operation_key = s.step_of
  WHERE w.status IN ('pending', 'retrying') AND w.payload IS NOT NULL AND ${lookedUpByKey('s.step_of')}
  FOR UPDATE OF w SKIP LOCKED
) s
WHERE p.tenant_id = s.tenant_id AND p.operation_key = s.operation_key AND ${lookedUpByKey('s.operation_key')}
`,
);

/** Closes letters. */
const CLOSE_LETTERS = statement(
  'close_letters',
  `
UPDATE {schema}.dead_letters l SET
  resolved_at     = clock_timestamp(),
  resolution      = a.resolution,
  actor           = :actor,
  note            = :note,
  -- Announced once in any case; again only while it is open.
  dispatch_due_at = CASE WHEN l.dispatches = 0 THEN l.dispatch_due_at END
FROM unnest(:letterId::uuid[], :resolution::text[]) AS a (letter_id, resolution)
WHERE l.id = a.letter_id
`,
);

interface Decided<J> {
  readonly judgement: J;
}

/** A letter, and what was decided about it. */
export type Judged = LockedLetterCase & Decided<Judgement>;

/** An operation that a report is about, and what was decided about it. */
export type JudgedReport = LockedOperationCase & Decided<ReportJudgement>;

type AnyJudged = Judged | JudgedReport;
type Done = Decided<Exclude<ReportJudgement, Refused | Nothing>>;

/** How long operations and letters are kept where their queue has set nothing, in ms. */
export type KeptMs = Pick<Retention, 'completedMs' | 'lettersMs'>;

/**
 * Writes what was decided about rows that are locked. Returns the letters for which nothing could be written: their
 * operation's row was gone, and a delivery has made it again and is running it.
 */
export async function write(
  run: RunStatement,
  judged: readonly AnyJudged[],
  author: Author,
  keptMs: KeptMs,
): Promise<ReadonlySet<LockedLetter | null>> {
  const overtaken = new Set<LockedLetter | null>(await runAgain(run, judged));
  for (const one of judged) {
    if (!(await changeOperation(run, one, keptMs))) overtaken.add(one.letter);
  }
  const done = judged.filter(isDone).filter(({ letter }) => !overtaken.has(letter));
  await closeLetters(run, done, author);
  await wakeParents(run, done);
  return overtaken;
}

export function isDone<One extends Decided<ReportJudgement>>(one: One): one is One & Done {
  return one.judgement.kind !== 'refused' && one.judgement.kind !== 'nothing';
}

/** Runs all at once. Returns the letters whose operation a delivery has made again in the meantime. */
async function runAgain(run: RunStatement, judged: readonly AnyJudged[]): Promise<LockedLetter[]> {
  const again = judged.flatMap(({ letter, operation, judgement }) =>
    letter !== null && judgement.kind === 'run_again' ? [{ letter, operation, judgement }] : [],
  );
  const deadline = again[0]?.judgement.deadline ?? null;
  const known = again.filter(({ operation }) => operation !== null);
  const doubts = known.map(({ judgement }) => judgement.keepsDoubt);
  if (known.length > 0) await run(RUN_AGAIN.with({ ...idsAndJobs(known), keepsDoubt: doubts, deadline }));
  const gone = again.filter(({ operation }) => operation === null);
  if (gone.length === 0) return [];
  const made = await run<{ id: string }>(MAKE_AGAIN.with({ ...idsAndJobs(gone), deadline }));
  return gone.map(({ letter }) => letter).filter(({ id }) => !made.some((row) => row.id === id));
}

function idsAndJobs(
  again: readonly { readonly letter: LockedLetter }[],
): Record<'letterId' | 'jobIdStem', unknown> {
  const jobIdStem = again.map(({ letter: { identity } }) => identity && jobIdOf(identity));
  return { letterId: again.map(({ letter }) => letter.id), jobIdStem };
}

/** Returns false when a delivery has made the operation in the meantime. */
async function changeOperation(
  run: RunStatement,
  { letter, operation, judgement }: AnyJudged,
  { completedMs, lettersMs }: KeptMs,
): Promise<boolean> {
  const identity = { tenantId: operation?.tenantId, operationKey: operation?.operationKey };
  switch (judgement.kind) {
    case 'complete':
      if (operation === null) {
        const remembered = { letterId: letter?.id, result: judgement.result, retentionMs: completedMs };
        return (await run(RECREATE_COMPLETED.with(remembered))).length > 0;
      }
      await run(COMPLETE_BY_WORD.with({ ...identity, result: judgement.result, retentionMs: completedMs }));
      break;
    case 'give_up':
    case 'replace':
      await run(GIVE_UP.with({ ...identity, retentionMs: Math.max(lettersMs, completedMs) }));
      break;
    case 'put_back':
      await run(PUT_BACK.with({ ...identity, jobIdStem: operation && jobIdOf(operation) }));
      break;
    case 'run_again':
    case 'leave':
    case 'refused':
    case 'nothing':
      break;
    default:
      judgement satisfies never;
  }
  return true;
}

async function closeLetters(
  run: RunStatement,
  done: readonly (AnyJudged & Done)[],
  { actor, note }: Author,
): Promise<void> {
  const closed = done.filter(({ letter }) => letter !== null);
  if (closed.length === 0) return;
  const letterId = closed.map(({ letter }) => letter?.id);
  const resolution = closed.map(({ judgement }) => judgement.as);
  await run(CLOSE_LETTERS.with({ letterId, resolution, actor, note }));
}

/** Wakes the handlers that wait for these operations as their steps. */
async function wakeParents(run: RunStatement, done: readonly (AnyJudged & Done)[]): Promise<void> {
  const changed = done.filter(({ judgement: { kind } }) => kind !== 'leave' && kind !== 'replace');
  const steps = changed.flatMap(({ operation }) => (operation?.stepOf == null ? [] : [operation]));
  if (steps.length === 0) return;
  const tenantId = steps.map((step) => step.tenantId);
  await run(WAKE.with({ tenantId, stepOf: steps.map((step) => step.stepOf) }));
}

/** Writes to the audit what {@link write} has done. */
export async function auditDone(
  run: RunStatement,
  action: string,
  author: Author,
  written: readonly AnyJudged[],
  redriveId?: string,
): Promise<void> {
  const entries = written.filter(isDone).map(({ letter, operation, judgement }) => {
    const { tenantId, operationKey }: Partial<OperationIdentity> = letter?.identity ?? operation ?? {};
    const queue = (letter ?? operation)?.queue;
    return { queue, letterId: letter?.id, tenantId, operationKey, details: detailsOf(judgement) };
  });
  await audit(run, action, author, entries, redriveId);
}

function detailsOf({ kind, as }: Done['judgement']): object | undefined {
  if (kind === 'run_again') return { verdict: 'allowed' };
  return as === 'completed' ? { verdict: 'completed' } : undefined;
}
