/** Values by two names, each made when it is first asked for. Looking one up allocates nothing. */
export class Grid<V> {
  readonly #rows = new Map<string, Map<string, V>>();

  constructor(private readonly make: (row: string, column: string) => V) {}

  find(row: string, column: string): V | undefined {
    return this.#rows.get(row)?.get(column);
  }

  at(row: string, column: string): V {
    let values = this.#rows.get(row);
    if (values === undefined) {
      values = new Map();
      this.#rows.set(row, values);
    }
    let value = values.get(column);
    if (value === undefined) {
      value = this.make(row, column);
      values.set(column, value);
    }
    return value;
  }

  /** How many columns the row has. */
  width(row: string): number {
    return this.#rows.get(row)?.size ?? 0;
  }
}
