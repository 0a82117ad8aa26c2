/** Runs SQL in which `{schema}` stands for the quoted schema. */
export type Ask = <Row>(sql: string, timeoutMs?: number) => Promise<Row[]>;

/** Puts the schema's name into SQL. */
export function inSchema(schema: string, sql: string): string {
  return sql.replaceAll('{schema}', () => quoted(schema));
}

/** A name as an SQL identifier. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Text as an SQL literal. */
export function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
