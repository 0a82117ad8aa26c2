/** What a column can show. */
export type Cell = string | number | Date | null | undefined;

/** Rows in aligned columns, for people. Numbers go to the right; what is undefined or null is left empty. */
export function textTable(headers: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const cells = [headers, ...rows.map((row) => row.map(cellOf))];
  const widths = headers.map((_header, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const isNumeric = headers.map((_header, column) =>
    rows.every((row) => typeof row[column] === 'number' || row[column] === undefined || row[column] === null),
  );
  return cells
    .map((row) =>
      row
        .map((cell, column) =>
          isNumeric[column] ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** One line, whatever an error message holds. */
function cellOf(value: Cell): string {
  if (value === undefined || value === null) return '';
  const text = value instanceof Date ? value.toISOString() : String(value);
  // oxlint-disable-next-line no-control-regex -- what a job carried must not steer the terminal
  const line = text.replace(/[\u0000-\u001F\u007F-\u009F]+/g, ' ');
  return line.length > MAX_CELL ? `${line.slice(0, MAX_CELL - 1)}…` : line;
}

const MAX_CELL = 80;
