import type { Database } from '../../ledger/postgres/database.js';
import { statement } from '../../ledger/postgres/statement.js';
import { Unavailable } from './wrong-usage.js';

/** Whether the ledger has ever heard of a queue. */
const HAS_HEARD_OF = statement(
  'has_heard_of_queue',
  `
SELECT EXISTS (SELECT FROM {schema}.job_queues WHERE queue = :queue)
    OR EXISTS (SELECT FROM {schema}.job_outcomes WHERE queue = :queue)
    OR EXISTS (SELECT FROM {schema}.dead_letters WHERE queue = :queue) AS is_known
`,
);

/**
 * Tells a queue where there is nothing to find from a name that was mistyped.
 *
 * @throws Unavailable if the ledger has never heard of the queue
 */
export async function refuseUnknownQueue(database: Database, queue: string | undefined): Promise<void> {
  if (queue === undefined) return;
  const [answer] = await database.run<{ is_known: boolean }>(HAS_HEARD_OF.with({ queue }));
  if (answer?.is_known !== true)
    throw new Unavailable(`The ledger knows no queue "${queue}". Check the name, and --schema.`);
}
