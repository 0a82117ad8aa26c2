import { jobIdOf, type OperationIdentity } from '../operation/identity.js';
import type { Author } from '../operation/ledger-action.js';
import type { RunStatement } from '../ledger/postgres/statement.js';
import { audit } from '../ledger/record/audit.js';
import type { Retention } from '../ledger/retention.options.js';
import type { Judgement, Nothing, Refused, ReportJudgement } from './judge-letter.js';
import type { LockedLetter, LockedLetterCase, LockedOperationCase } from './lock.js';
import {
  CLOSE_LETTERS,
  COMPLETE_BY_WORD,
  GIVE_UP,
  MAKE_AGAIN,
  PUT_BACK,
  RECREATE_COMPLETED,
  RUN_AGAIN,
  WAKE,
} from './write.statements.js';

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
