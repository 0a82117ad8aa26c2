/** Another transaction holds the row that a statement should write; nothing was written. */
export class RowLockedError extends Error {
  override readonly name = 'RowLockedError';

  constructor() {
    super('Another transaction holds the row of the operation.');
  }
}
