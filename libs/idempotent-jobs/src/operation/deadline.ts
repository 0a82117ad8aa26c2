/** What is wrong with a deadline. Undefined when it is valid. */
export function deadlineProblem(deadline: unknown): string | undefined {
  if (!(deadline instanceof Date) || Number.isNaN(deadline.getTime())) return 'must be a valid Date';
  return deadline.getTime() < EARLIEST_MS ? 'must not be before the year 1' : undefined;
}

/** A Date can be earlier than Postgres allows, and such a deadline is a mistake. */
const EARLIEST_MS = Date.parse('0001-01-01T00:00:00.000Z');
