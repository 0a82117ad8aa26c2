/** A timestamptz as a Date, even where the application has told pg to return it as text. */
export function toDate(value: Date | string): Date {
  return value instanceof Date ? value : new Date(value);
}

/** As {@link toDate}; null becomes undefined. */
export function toDateOrNone(value: Date | string | null): Date | undefined {
  return value === null ? undefined : toDate(value);
}
