import { UsageError } from './errors.js';

/** Who changes the ledger by hand, and why; stored in `job_actions`. */
export interface LedgerAction {
  /** A person or a system, 1 to 200 characters. */
  readonly actor: string;
  /** Why, 1 to 2,000 characters. */
  readonly note: string;
  /** Only report what would happen. Default false. */
  readonly dryRun?: boolean;
}

/** A {@link LedgerAction} that was checked. */
export interface Author {
  readonly actor: string;
  readonly note: string;
}

/** @throws UsageError naming what is missing or too long */
export function assertAuthor(action: LedgerAction): Author {
  if (action === null || typeof action !== 'object')
    throw new UsageError('Say who does this and why: { actor, note }.');
  const { actor, note, dryRun } = action;
  if (dryRun !== undefined && typeof dryRun !== 'boolean')
    throw new UsageError(`dryRun must be true or false, but is ${JSON.stringify(dryRun)}.`);
  if (!isText(actor, 200)) throw new UsageError('actor must say who does this, in 1 to 200 characters.');
  if (!isText(note, 2000)) throw new UsageError('note must say why, in 1 to 2,000 characters.');
  return { actor, note };
}

function isText(value: unknown, maxLength: number): value is string {
  return (
    typeof value === 'string' &&
    value.trim() !== '' &&
    value.length <= maxLength &&
    !value.includes('\0') &&
    value.isWellFormed()
  );
}
