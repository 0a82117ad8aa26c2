import { provenanceOf } from '../enqueue/provenance.js';
import type { AskedOperation, OperationStore } from '../enqueue/operation.store.js';
import { OperationConflictError, UsageError } from '../operation/errors.js';
import type { Database, Queryable } from '../postgres/database.js';
import { statement } from '../postgres/statement.js';
import { inTransaction } from '../postgres/transaction.js';
import type { DeadLetterWithPayload } from './dead-letter.js';
import type { Author } from '../operation/ledger-action.js';
import { letterBinding, payloadBinding } from '../sealing/binding.js';
import type { Sealer } from '../sealing/sealer.js';
import { refused, type Refusal } from './refusals.js';

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
 * Closes the letter, ties the new operation to it, and lets its own operation be, which stays dead and is remembered like
 * one whose letter was discarded. Parameters: letter, tenant, key, actor, note, retention in ms where the queue has told
 * none. One row comes back: nothing but `allowed` has changed anything.
 */
const LINK = statement(
  'link_edited',
  `
WITH letter AS (
  SELECT * FROM {schema}.dead_letters WHERE id = $1 FOR UPDATE
), operation AS (
  SELECT o.*
  FROM {schema}.job_outcomes o JOIN letter l ON o.tenant_id = l.tenant_id AND o.operation_key = l.operation_key
  WHERE l.reason <> 'idempotency_conflict'
  FOR UPDATE OF o
), judged AS (
  SELECT l.*, CASE
    WHEN l.resolved_at IS NOT NULL THEN 'resolved'
    WHEN o.status = 'completed' THEN 'has_completed'
    WHEN o.status IN ('pending', 'running', 'retrying') THEN 'under_way'
    WHEN o.status = 'in_doubt' OR l.reason IN ('in_doubt', 'expired') THEN 'in_doubt'
    ELSE 'allowed'
  END AS verdict
  FROM letter l LEFT JOIN operation o ON true
), closed AS (
  UPDATE {schema}.dead_letters l
  SET resolved_at = clock_timestamp(), resolution = 'redriven', actor = $4, note = $5,
      dispatch_due_at = CASE WHEN l.dispatches = 0 THEN l.dispatch_due_at END
  FROM judged j WHERE l.id = j.id AND j.verdict = 'allowed'
), left_behind AS (
  UPDATE {schema}.job_outcomes o
  SET expires_at = clock_timestamp() + interval '1 millisecond' * COALESCE(
    (SELECT GREATEST(letter_retention_ms, completed_retention_ms) FROM {schema}.job_queues q WHERE q.queue = o.queue), $6::float8)
  FROM operation p, judged j
  WHERE j.verdict = 'allowed' AND o.tenant_id = p.tenant_id AND o.operation_key = p.operation_key
), linked AS (
  UPDATE {schema}.job_outcomes o SET redriven_from = j.id
  FROM judged j WHERE j.verdict = 'allowed' AND o.tenant_id = $2 AND o.operation_key = $3
), audited AS (
  INSERT INTO {schema}.job_actions (action, actor, note, queue, letter_id, tenant_id, operation_key, details)
  SELECT 'redrive_edited', $4, $5, queue, id, $2, $3,
         json_build_object('tenantId', tenant_id, 'operationKey', operation_key)
  FROM judged WHERE verdict = 'allowed'
)
SELECT verdict FROM judged
`,
);

/** Makes a new operation from a letter that cannot be run as it is. */
export class EditedRedrive {
  constructor(
    private readonly database: Database,
    private readonly operations: OperationStore,
    private readonly sealer: Sealer,
    private readonly ask: AskAsProducer,
    private readonly isAllowed: boolean,
    /** How long an operation that is left behind is remembered, in ms, where its queue has told nothing. */
    private readonly keptMs: number,
  ) {}

  /** All or nothing: the operation exists if and only if the letter is closed. `letter`: with its payload as it is kept. */
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
    const payload = 'payload' in edit ? edit.payload : this.#payloadOf(letter);
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
      const values = [letter.id, tenantId, operationKey, author.actor, author.note, this.keptMs];
      const [row] = await this.database.run<{ verdict: Refusal | 'allowed' }>(LINK, values, connection);
      if (row === undefined) throw refused(letter.id, 'resolved');
      if (row.verdict !== 'allowed') throw refused(letter.id, row.verdict);
      if (isDryRun) throw new DryRun();
    };
    await inTransaction(this.database, write).catch((error: unknown) => {
      if (!(error instanceof DryRun)) throw error;
    });
  }

  /**
   * A job that nobody could identify is kept as it came. Under an id that the library has derived that is the library's
   * own form, with a payload that was sealed for whomever it names; under any other it is what its producer wrote.
   */
  #payloadOf(letter: DeadLetterWithPayload): unknown {
    const payload = this.sealer.open(letter.payload, letterBinding(letter));
    if (letter.tenantId !== undefined) return payload;
    const provenance = provenanceOf({ id: letter.jobId, data: payload });
    if (provenance.kind === 'plain' || (provenance.kind === 'unconfirmed' && !provenance.hasDerivedId))
      return payload;
    const { envelope } = provenance;
    return this.sealer.open(envelope.payload, payloadBinding(envelope.operation));
  }
}

/** Takes back what a dry run has written. */
class DryRun extends Error {}
