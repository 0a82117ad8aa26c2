import { printable } from '../../events/printable.js';

/** What a column can show. */
export type Cell = string | number | Date | null | undefined;

/** Rows in aligned columns, for people. Numbers go to the right; what is undefined or null is left empty. */
export function textTable(headers: readonly string[], rows: readonly (readonly Cell[])[]): string[] {
  const cells = [headers, ...rows.map((row) => row.map(cellOf))];
  const widths = headers.map((_header, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const isNumeric = headers.map((_header, column) =>
    rows.every((row) => typeof row[column] === 'number' || row[column] === undefined || row[column] === null),
  );
  return cells.map((row) =>
    row
      .map((cell, column) =>
        isNumeric[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
}

/** One line, whatever an error message holds. */
function cellOf(value: Cell): string {
  if (value === undefined || value === null) return '';
  const text = value instanceof Date ? value.toISOString() : String(value);
  // Escaped here as well, so that columns are as wide as what is seen.
  const characters = Array.from(printable(text));
  return characters.length > MAX_CELL
    ? `${characters.slice(0, MAX_CELL - 1).join('')}…`
    : characters.join('');
}

const MAX_CELL = 80;
