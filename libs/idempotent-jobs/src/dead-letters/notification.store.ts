import { Injectable } from '@nestjs/common';
import { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';

/** A handler has heard of a letter: it need not be put on its queue again. */
const MARK_NOTIFIED = statement(
  'mark_notified',
  `UPDATE {schema}.dead_letters SET notified_at = clock_timestamp(), dispatch_due_at = NULL WHERE id = :letterId AND notified_at IS NULL`,
);

/**
 * An application hears of the letters of these queues. Those that were announced before anybody did are announced again.
 */
const LISTEN = statement(
  'listen',
  `
WITH known AS (
  SELECT queue, COALESCE(listened_at > clock_timestamp() - interval '1 day', false) AS was_heard
  FROM {schema}.job_queues WHERE queue = ANY (:queues) ORDER BY queue FOR UPDATE
), listening AS (
  UPDATE {schema}.job_queues q SET listened_at = clock_timestamp() FROM known k WHERE q.queue = k.queue
)
UPDATE {schema}.dead_letters l SET dispatch_due_at = clock_timestamp()
FROM known k
WHERE NOT k.was_heard AND l.queue = k.queue
  AND l.resolved_at IS NULL AND l.notified_at IS NULL AND l.dispatch_due_at IS NULL
`,
);

/** A processor of the application takes them, which does not say what it has heard. */
const DO_NOT_LISTEN = statement(
  'do_not_listen',
  'UPDATE {schema}.job_queues SET listened_at = NULL WHERE queue = ANY (:queues) AND listened_at IS NOT NULL',
);

/** Where the letters of a queue are announced, as whoever registered it last has said. */
const DEAD_LETTER_QUEUE_OF = statement(
  'dead_letter_queue_of',
  'SELECT dead_letter_queue FROM {schema}.job_queues WHERE queue = :queue',
);

/** Keeps account of what the application has heard. */
@Injectable()
export class NotificationStore {
  constructor(private readonly database: Database) {}

  async markNotified(letterId: string): Promise<void> {
    await this.database.run(MARK_NOTIFIED.with({ letterId }));
  }

  /** Undefined: no application has registered that queue. */
  async deadLetterQueueOf(queue: string): Promise<string | undefined> {
    const [row] = await this.database.run<{ dead_letter_queue: string }>(
      DEAD_LETTER_QUEUE_OF.with({ queue }),
    );
    return row?.dead_letter_queue;
  }

  /** To be said again at least once a day, for as long as it is true. */
  async listen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(LISTEN.with({ queues }));
  }

  async doNotListen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(DO_NOT_LISTEN.with({ queues }));
  }
}
