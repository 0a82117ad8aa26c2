import type { Database } from '../postgres/database.js';
import { statement } from '../postgres/statement.js';

/** A handler has heard of a letter: it need not be put on its queue again. Parameter: letter. */
const TOLD = statement(
  'told',
  `UPDATE {schema}.dead_letters SET told_at = clock_timestamp(), dispatch_due_at = NULL WHERE id = $1 AND told_at IS NULL`,
);

/**
 * Who hears of a queue's letters: handlers of the application, or a processor of its own, which says nothing of what it has
 * heard. Letters that were announced before anybody told of them are announced again. Parameters: queues, whether they
 * have handlers.
 */
const NOTE_LISTENING = statement(
  'note_listening',
  `
WITH noted AS (
  UPDATE {schema}.job_queues SET is_told = $2 WHERE queue = ANY ($1) AND is_told <> $2 RETURNING queue
)
UPDATE {schema}.dead_letters l SET dispatch_due_at = clock_timestamp()
FROM noted n
WHERE $2 AND l.queue = n.queue AND l.resolved_at IS NULL AND l.told_at IS NULL AND l.dispatch_due_at IS NULL
`,
);

/** Keeps account of what the application has heard. */
export class ToldStore {
  constructor(private readonly database: Database) {}

  async told(letterId: string): Promise<void> {
    await this.database.run(TOLD, [letterId]);
  }

  async noteListening(queues: readonly string[], hasHandlers: boolean): Promise<void> {
    if (queues.length > 0) await this.database.run(NOTE_LISTENING, [queues, hasHandlers]);
  }
}
