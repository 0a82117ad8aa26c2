import type { Queryable } from './database.js';

/**
 * Names the database that a connection leads to: the same name, however it is addressed, and another one for any other
 * database, server or replica. The moment a server was started, to the microsecond, tells servers apart without a
 * privilege; a restart gives it another name.
 */
export async function nameDatabase(connection: Queryable): Promise<string> {
  const { rows } = await connection.query({ text: NAME, values: [] });
  return (rows[0] as { name: string }).name;
}

const NAME = `
SELECT oid || '@' || EXTRACT(EPOCH FROM pg_postmaster_start_time()) AS name
FROM pg_database
WHERE datname = current_database()`;

/** How long an answer is waited for: whoever asks holds a transaction open. */
const PATIENCE_MS = 1000;

/** Where something is that stays in one database. Asks as seldom as it can: what it has found does not move. */
export class Location {
  #name: string | undefined;
  #asking: Promise<void> | undefined;
  #askedAt = -Infinity;

  constructor(private readonly find: () => Promise<string>) {}

  /** Whether it is in the database of that name; undefined if nobody knows at the moment. */
  async is(name: string): Promise<boolean | undefined> {
    // Another name than the known one may only mean that the server was restarted.
    if (this.#name !== name) await this.#ask();
    return this.#name === undefined ? undefined : this.#name === name;
  }

  async #ask(): Promise<void> {
    if (this.#asking === undefined && performance.now() - this.#askedAt < PATIENCE_MS) return;
    this.#asking ??= this.find()
      .then(
        (name) => {
          this.#name = name;
        },
        () => {
          this.#name = undefined;
        },
      )
      .finally(() => {
        this.#asking = undefined;
        this.#askedAt = performance.now();
      });
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, PATIENCE_MS);
    });
    await Promise.race([this.#asking, patience]);
    clearTimeout(timer);
  }
}
