import { ActionStore } from '../../dead-letters/action.store.js';
import { DeadLetterService } from '../../dead-letters/dead-letter.service.js';
import { EditedRedrive } from '../../dead-letters/edited-redrive.js';
import { BulkRedriveStore } from '../../dead-letters/bulk-redrive.store.js';
import { OperationStore } from '../../producer/operation.store.js';
import { LibraryLog } from '../../events/library-log.js';
import type { Database } from '../../ledger/postgres/database.js';
import { Pruner } from '../retention/pruner.js';
import { DEFAULT_RETENTION } from '../../ledger/retention.options.js';
import { KeylessEncryption } from './keyless-encryption.js';
import { TenantContext } from '../../tenancy/tenant-context.js';

/**
 * The application's services, outside of it: what they make due is carried by the dispatchers of the applications, which
 * are told by NOTIFY; redrives of many by whichever application looks first. Queues' own retention is read from
 * `job_queues`; the defaults are for queues that are not there.
 */
export function deadLettersOf(database: Database): DeadLetterService {
  const operations = new OperationStore(database);
  const encryption = new KeylessEncryption();
  return new DeadLetterService({
    database,
    store: new BulkRedriveStore(database),
    actions: new ActionStore(database, DEFAULT_RETENTION),
    encryption,
    tenants: new TenantContext(),
    // Nobody here has the queue's producer, who alone can say what a new operation is.
    edited: new EditedRedrive(database, operations, encryption, () => undefined, false, DEFAULT_RETENTION),
    // Metrics are the applications'; what was done here is in job_actions.
    onClosed: () => undefined,
    onDue: (queue) => operations.announce(operations.onPool, queue),
    wakeRunner: () => undefined,
  });
}

/** See {@link deadLettersOf}. */
export function prunerOf(database: Database): Pruner {
  return new Pruner(database, new LibraryLog({ warn: () => undefined, error: () => undefined }));
}
