/** The rows of a table that is written as in Markdown, each cell by the heading of its column. */
export function rowsOf<Column extends string>(table: string): Record<Column, string>[] {
  const [headings = [], , ...rows] = table
    .trim()
    .split('\n')
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  return rows.map(
    (cells) =>
      Object.fromEntries(headings.map((heading, column) => [heading, cells[column]])) as Record<
        Column,
        string
      >,
  );
}
