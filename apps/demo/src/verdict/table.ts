import type { Flush } from '../run/flush.js';
import type { Verdict } from './judge.js';

/** Two lines of heading, and the cell below them. */
type Column = readonly [above: string, below: string, cellOf: (row: TableRow) => string];

const count =
  (key: keyof Verdict) =>
  ({ verdict }: TableRow): string =>
    String(verdict[key]);

const COLUMNS: readonly Column[] = [
  ['', 'operations', count('operations')],
  ['', 'charges', count('charges')],
  ['duplicate', 'charges', count('duplicateCharges')],
  ['duplicate', 'mails', count('duplicateMails')],
  ['mails to the', 'wrong tenant', count('wrongTenantMails')],
  ['', 'lost', count('lost')],
  ['in', 'doubt', count('inDoubt')],
  ['dead', 'letters', count('deadLetters')],
  ['', 'seconds', ({ verdict }) => verdict.seconds.toFixed(1)],
];

const FLUSH_COLUMNS: readonly Column[] = [
  ['Redis lost', 'at second', ({ flush }) => flush?.second.toFixed(1) ?? ''],
  ['with', 'jobs', ({ flush }) => String(flush?.jobs ?? '')],
];

/** What the table says of a variant. */
export interface TableRow {
  readonly title: string;
  readonly verdict: Verdict;
  readonly flush?: Flush | undefined;
}

/** One row for each variant; with the moment of the flush and what went with it, where there was one. */
export function table(rows: readonly TableRow[]): string {
  const columns = rows.some(({ flush }) => flush !== undefined) ? [...COLUMNS, ...FLUSH_COLUMNS] : COLUMNS;
  const cells = [
    ['', ...columns.map(([above]) => above)],
    ['', ...columns.map(([, below]) => below)],
    ...rows.map((row) => [row.title, ...columns.map(([, , cellOf]) => cellOf(row))]),
  ];
  const widths = [0, ...columns.map((_, index) => index + 1)].map((column) =>
    Math.max(...cells.map((row) => row[column]?.length ?? 0)),
  );
  const lines = cells.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
  const rule = '-'.repeat(lines.at(-1)?.length ?? 0);
  return [...lines.slice(0, 2), rule, ...lines.slice(2)].join('\n');
}
