import { Injectable } from '@nestjs/common';
import { Database } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';

/** A handler has heard of a letter: it need not be put on its queue again. Parameter: letter. */
const TOLD = statement(
  'told',
  `UPDATE {schema}.dead_letters SET notified_at = clock_timestamp(), dispatch_due_at = NULL WHERE id = $1 AND notified_at IS NULL`,
);

/**
 * An application hears of the letters of these queues. Those that were announced before anybody did are announced again.
 * Parameter: queues.
 */
const LISTEN = statement(
  'listen',
  `
WITH known AS (
  SELECT queue, COALESCE(listened_at > clock_timestamp() - interval '1 day', false) AS was_heard
  FROM {schema}.job_queues WHERE queue = ANY ($1) ORDER BY queue FOR UPDATE
), listening AS (
  UPDATE {schema}.job_queues q SET listened_at = clock_timestamp() FROM known k WHERE q.queue = k.queue
)
UPDATE {schema}.dead_letters l SET dispatch_due_at = clock_timestamp()
FROM known k
WHERE NOT k.was_heard AND l.queue = k.queue
  AND l.resolved_at IS NULL AND l.notified_at IS NULL AND l.dispatch_due_at IS NULL
`,
);

/** A processor of the application takes them, which does not say what it has heard. Parameter: queues. */
const DO_NOT_LISTEN = statement(
  'do_not_listen',
  'UPDATE {schema}.job_queues SET listened_at = NULL WHERE queue = ANY ($1) AND listened_at IS NOT NULL',
);

/** Where the letters of a queue are announced, as whoever registered it last has said. Parameter: queue. */
const DEAD_LETTER_QUEUE_OF = statement(
  'dead_letter_queue_of',
  'SELECT dead_letter_queue FROM {schema}.job_queues WHERE queue = $1',
);

/** Keeps account of what the application has heard. */
@Injectable()
export class NotificationStore {
  constructor(private readonly database: Database) {}

  async told(letterId: string): Promise<void> {
    await this.database.run(TOLD, [letterId]);
  }

  /** Undefined: no application has registered that queue. */
  async deadLetterQueueOf(queue: string): Promise<string | undefined> {
    const [row] = await this.database.run<{ dead_letter_queue: string }>(DEAD_LETTER_QUEUE_OF, [queue]);
    return row?.dead_letter_queue;
  }

  /** To be said again at least once a day, for as long as it is true. */
  async listen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(LISTEN, [queues]);
  }

  async doNotListen(queues: readonly string[]): Promise<void> {
    if (queues.length > 0) await this.database.run(DO_NOT_LISTEN, [queues]);
  }
}
