import { printable } from '../../events/printable.js';
import type { CommandResult } from './command.js';

/** What a column can show. */
export type Cell = string | number | Date | null | undefined;

/** The columns of a table: by header, the function that reads the cell from a row. */
export type Columns<Row> = Readonly<Record<string, (row: Row) => Cell>>;

/** The result of an action, done or planned, in one line. */
export function done(json: unknown, line: string): CommandResult {
  return { exitCode: 0, json, lines: [line] };
}

/** A list. If it is empty, the exit code is 1 and `nothing` says so. */
export function listed<Row>(
  json: unknown,
  rows: readonly Row[],
  columns: Columns<Row>,
  nothing: string,
): CommandResult {
  if (rows.length === 0) return { exitCode: 1, json, lines: [nothing] };
  return { exitCode: 0, json, lines: textTable(rows, columns) };
}

/** Rows in aligned columns. Numbers are aligned right; undefined and null are left empty. */
export function textTable<Row>(rows: readonly Row[], columns: Columns<Row>): string[] {
  const aligned = Object.entries(columns).map(([header, show]) => {
    const values = rows.map(show);
    const cells = [header, ...values.map(cellOf)];
    const width = Math.max(...cells.map((cell) => cell.length));
    const isNumeric = values.every(
      (value) => typeof value === 'number' || value === undefined || value === null,
    );
    return cells.map((cell) => (isNumeric ? cell.padStart(width) : cell.padEnd(width)));
  });
  return [undefined, ...rows].map((_row, line) =>
    aligned
      .map((cells) => cells[line])
      .join('  ')
      .trimEnd(),
  );
}

/** One line, even if an error message has several. */
function cellOf(value: Cell): string {
  if (value === undefined || value === null) return '';
  const text = value instanceof Date ? value.toISOString() : String(value);
  // Escaped here as well, so that a column is as wide as what is shown.
  const characters = Array.from(printable(text));
  return characters.length > MAX_CELL
    ? `${characters.slice(0, MAX_CELL - 1).join('')}…`
    : characters.join('');
}

const MAX_CELL = 80;
