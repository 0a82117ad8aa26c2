import { JobEvents } from '../../events/job-events.js';
import { LibraryLog } from '../../events/library-log.js';
import { ActionStore } from '../../dead-letters/action.store.js';
import { DeadLetterService } from '../../dead-letters/dead-letter.service.js';
import { EditedRedrive } from '../../dead-letters/edited-redrive.js';
import { LetterQueries } from '../../dead-letters/letter.queries.js';
import { BulkRedriveRunner } from '../../dead-letters/bulk-redrive.runner.js';
import { BulkRedriveStore } from '../../dead-letters/bulk-redrive.store.js';
import { isEncrypted, keyIdOf, Encryption } from '../../ledger/encryption/encryption.js';
import type { Database } from '../../ledger/postgres/database.js';
import { statement } from '../../ledger/postgres/statement.js';
import { DEFAULT_RETENTION } from '../../ledger/retention.options.js';
import { Due } from '../../producer/due.js';
import { OperationStore } from '../../producer/operation.store.js';
import { TenantContext } from '../../tenancy/tenant-context.js';
import { Unavailable } from './command.js';

/**
 * The application's service, outside of the application. The applications' dispatchers, notified by NOTIFY, carry what it
 * makes due; whichever application polls first runs a bulk redrive. A queue's retention is read from `job_queues`; the
 * defaults are for queues that are not there.
 */
export function deadLettersOf(database: Database): DeadLetterService {
  const operations = new OperationStore(database);
  const store = new BulkRedriveStore(database);
  const encryption = new KeylessEncryption();
  const options = { retention: DEFAULT_RETENTION, editedRedrive: false };
  const actions = new ActionStore(database, options);
  // The applications count metrics; what was done here is in job_actions.
  const events = new JobEvents();
  const due = new Due(operations);
  return new DeadLetterService(
    new LetterQueries(database),
    store,
    actions,
    new EditedRedrive(database, operations, encryption, { queueOf: () => undefined }, options),
    // It is never started here.
    new BulkRedriveRunner(store, actions, events, due, new LibraryLog()),
    encryption,
    new TenantContext(),
    events,
    due,
  );
}

/** The command line has no keys: it shows an encrypted value as encrypted, also inside of another value. */
export class KeylessEncryption extends Encryption {
  constructor() {
    super({});
  }

  override open(value: unknown): unknown {
    return value === undefined
      ? undefined
      : JSON.parse(JSON.stringify(value), (_name, part: unknown) =>
          isEncrypted(part) ? `(encrypted with key ${keyIdOf(part) ?? 'unknown'})` : part,
        );
  }
}

/** Whether the ledger knows a queue. */
const HAS_HEARD_OF = statement(
  'has_heard_of_queue',
  `
SELECT EXISTS (SELECT FROM {schema}.job_queues WHERE queue = :queue)
    OR EXISTS (SELECT FROM {schema}.job_outcomes WHERE queue = :queue)
    OR EXISTS (SELECT FROM {schema}.dead_letters WHERE queue = :queue) AS is_known
`,
);

/**
 * Distinguishes a mistyped name from a queue that has nothing to show.
 *
 * @throws Unavailable if the ledger has never had the queue
 */
export async function refuseUnknownQueue(database: Database, queue: string | undefined): Promise<void> {
  if (queue === undefined) return;
  const [answer] = await database.run<{ is_known: boolean }>(HAS_HEARD_OF.with({ queue }));
  if (answer?.is_known !== true)
    throw new Unavailable(`The ledger knows no queue "${queue}". Check the name, and --schema.`);
}
