/** One forward step of the ledger's schema. `{schema}` stands for the quoted schema. */
export interface SchemaStep {
  readonly version: number;
  readonly name: string;
  /** What {@link batch} needs. May be run again. */
  readonly before?: string;
  /**
   * Changes some thousands of rows, and returns one row for each; run until there is none left, each time in a transaction of
   * its own, so that nobody waits for more than a batch. What it leaves over, `sql` does.
   */
  readonly batch?: string;
  readonly sql: string;
  /**
   * Indexes on tables that may be full: each what follows `CREATE`. Built afterwards, without keeping anybody from the table,
   * where the step is not part of a larger transaction.
   */
  readonly indexes?: readonly `INDEX ${string}`[];
}
