import { Injectable } from '@nestjs/common';
import { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';

/** Marks a letter as notified: it need not be put on its dead-letter queue again. */
const MARK_NOTIFIED = statement(
  'mark_notified',
  `UPDATE {schema}.dead_letters SET notified_at = clock_timestamp(), dispatch_due_at = NULL WHERE id = :letterId AND notified_at IS NULL`,
);

/**
 * Notes that an application listens to the letters of these queues. Letters announced before any application listened are
 * announced again.
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

/** Notes that a processor of the application takes the letters: the library cannot tell which ones it has handled. */
const DO_NOT_LISTEN = statement(
  'do_not_listen',
  'UPDATE {schema}.job_queues SET listened_at = NULL WHERE queue = ANY (:queues) AND listened_at IS NOT NULL',
);

/** The dead-letter queue of a source queue, as the application that registered it last has set it. */
const DEAD_LETTER_QUEUE_OF = statement(
  'dead_letter_queue_of',
  'SELECT dead_letter_queue FROM {schema}.job_queues WHERE queue = :queue',
);

/** Records of which letters and queues the application is notified. */
@Injectable()
export class NotificationStore {
  constructor(private readonly database: Database) {}

  async markNotified(letterId: string): Promise<void> {
    await this.database.run(MARK_NOTIFIED.with({ letterId }));
  }

  /** Undefined when no application has registered that queue. */
  async deadLetterQueueOf(queue: string): Promise<string | undefined> {
    const [row] = await this.database.run<{ dead_letter_queue: string }>(
      DEAD_LETTER_QUEUE_OF.with({ queue }),
    );
    return row?.dead_letter_queue;
  }

  /** Must be called again at least once a day while the application listens. */
  async listen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(LISTEN.with({ queues }));
  }

  async doNotListen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(DO_NOT_LISTEN.with({ queues }));
  }
}
