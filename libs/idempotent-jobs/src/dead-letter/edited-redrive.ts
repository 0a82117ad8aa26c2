import { isEnvelope } from '../enqueue/envelope.js';
import type { AskedOperation, OperationStore } from '../enqueue/operation.store.js';
import { OperationConflictError, UsageError } from '../operation/errors.js';
import type { Database, Queryable } from '../postgres/database.js';
import { statement } from '../postgres/statement.js';
import { inTransaction } from '../postgres/transaction.js';
import type { DeadLetterWithPayload } from './dead-letter.js';
import type { Author } from '../operation/ledger-action.js';
import { refused } from './refusals.js';

/** What a person gives an operation that is made from a letter by hand. */
export interface OperationEdit {
  readonly tenantId: string;
  readonly operationKey: string;
  /** Default: the letter's. */
  readonly jobName?: string;
  /** Default: the letter's. */
  readonly payload?: unknown;
}

/** Checks a request as if it were enqueued; undefined: the queue is not registered here. */
export type AskAsProducer = (
  queue: string,
  jobName: string,
  payload: unknown,
  identity: { readonly tenantId: string; readonly operationKey: string },
) => AskedOperation | undefined;

/**
 * Closes the letter and ties the new operation to it. Parameters: letter, tenant, key, actor, note. No row: the letter was
 * resolved meanwhile.
 */
const LINK = statement(
  'link_edited',
  `
WITH closed AS (
  UPDATE {schema}.dead_letters SET resolved_at = clock_timestamp(), resolution = 'redriven', actor = $4, note = $5
  WHERE id = $1 AND resolved_at IS NULL
  RETURNING *
), linked AS (
  UPDATE {schema}.job_outcomes o SET redriven_from = closed.id
  FROM closed WHERE o.tenant_id = $2 AND o.operation_key = $3
), audited AS (
  INSERT INTO {schema}.job_actions (action, actor, note, queue, letter_id, tenant_id, operation_key, details)
  SELECT 'redrive_edited', $4, $5, queue, id, $2, $3,
         json_build_object('tenantId', tenant_id, 'operationKey', operation_key)
  FROM closed
)
SELECT id FROM closed
`,
);

/** Makes a new operation from a letter that cannot be run as it is. */
export class EditedRedrive {
  constructor(
    private readonly database: Database,
    private readonly operations: OperationStore,
    private readonly ask: AskAsProducer,
    private readonly isAllowed: boolean,
  ) {}

  /** All or nothing: the operation exists if and only if the letter is closed. */
  async make(
    letter: DeadLetterWithPayload,
    edit: OperationEdit,
    author: Author,
    isDryRun: boolean,
  ): Promise<void> {
    if (!this.isAllowed) {
      throw new UsageError(
        'Giving a dead letter another identity or payload is switched off. Allow it with forRoot({ deadLetters: { editedRedrive: true } }).',
      );
    }
    const { tenantId, operationKey } = edit;
    const payload = 'payload' in edit ? edit.payload : payloadOf(letter);
    const asked = this.ask(letter.queue, edit.jobName ?? letter.jobName, payload, { tenantId, operationKey });
    if (asked === undefined) {
      throw new UsageError(
        `Queue "${letter.queue}" is not registered here. Redrive its letters in an application that has registerQueue("${letter.queue}").`,
      );
    }
    const write = async (connection: Queryable): Promise<void> => {
      const [accepted] = await this.operations.accept(this.operations.on(connection), [asked]);
      if (accepted?.kind === 'conflict') throw new OperationConflictError(tenantId, operationKey);
      if (accepted?.kind === 'duplicate') throw refused(letter.id, 'key_taken');
      const values = [letter.id, tenantId, operationKey, author.actor, author.note];
      const linked = await this.database.run(LINK, values, connection);
      if (linked.length === 0) throw refused(letter.id, 'resolved');
      if (isDryRun) throw new DryRun();
    };
    await inTransaction(this.database, write).catch((error: unknown) => {
      if (!(error instanceof DryRun)) throw error;
    });
  }
}

/** Takes back what a dry run has written. */
class DryRun extends Error {}

/** A job that nobody could identify is kept as it came, which may be the library's own form. */
function payloadOf({ payload, tenantId }: DeadLetterWithPayload): unknown {
  return tenantId === undefined && isEnvelope(payload) ? payload.payload : payload;
}
