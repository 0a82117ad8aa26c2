import { Inject, Injectable } from '@nestjs/common';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { QueueRegistry } from '../producer/queue-registry.js';
import { provenanceOf } from '../producer/envelope.js';
import { OperationStore } from '../producer/operation.store.js';
import { OperationConflictError, UsageError } from '../operation/errors.js';
import { Database, type Queryable } from '../ledger/postgres/database.js';
import { statement } from '../ledger/postgres/statement.js';
import type { DeadLetterWithPayload } from './dead-letter.js';
import type { Author } from '../operation/ledger-action.js';
import { letterBinding, payloadBinding, Encryption } from '../ledger/encryption/encryption.js';
import { audit } from '../ledger/record/audit.js';
import { judge, refusal } from './judge-letter.js';
import { lockLetters, type LockedLetter, peekAtLetter } from './lock.js';
import { type KeptMs, write } from './write.js';

/** What the operator sets for an operation that is made from a letter by hand. */
export interface OperationEdit {
  readonly tenantId: string;
  readonly operationKey: string;
  /** Default: the letter's. */
  readonly jobName?: string;
  /** Default: the letter's. */
  readonly payload?: unknown;
}

/** Links a new operation to the letter that it was made from. */
const LINK = statement(
  'link_edited',
  'UPDATE {schema}.job_outcomes SET redriven_from = :letterId WHERE tenant_id = :tenantId AND operation_key = :operationKey',
);

/** Makes a new operation from a letter that cannot run as it is. */
@Injectable()
export class EditedRedrive {
  constructor(
    private readonly database: Database,
    private readonly operations: OperationStore,
    private readonly encryption: Encryption,
    /** Only the queue's producer can check a new operation. */
    @Inject(QueueRegistry) private readonly queues: Pick<QueueRegistry, 'queueOf'>,
    @Inject(RESOLVED_OPTIONS)
    private readonly options: { readonly editedRedrive: boolean; readonly retention: KeptMs },
  ) {}

  /**
   * All or nothing: the operation exists if and only if the letter is closed. Only taking a key shows whether it is free,
   * so a dry run takes it and rolls back. `letter` has its payload as it is stored. Returns the letter that was closed;
   * undefined after a dry run.
   */
  async make(
    letter: DeadLetterWithPayload,
    edit: OperationEdit,
    author: Author,
    isDryRun: boolean,
  ): Promise<LockedLetter | undefined> {
    if (!this.options.editedRedrive) {
      throw new UsageError(
        'Giving a dead letter another identity or payload is switched off. Allow it with forRoot({ deadLetters: { editedRedrive: true } }).',
      );
    }
    const { tenantId, operationKey } = edit;
    const payload = 'payload' in edit ? edit.payload : this.#payloadOf(letter);
    const queue = this.queues.queueOf(letter.queue);
    if (queue === undefined) {
      throw new UsageError(
        `Queue "${letter.queue}" is not registered here. Redrive its letters in an application that has registerQueue("${letter.queue}").`,
      );
    }
    const asked = queue.ask(edit.jobName ?? letter.jobName, payload, { tenantId, operationKey });
    const make = async (connection: Queryable): Promise<LockedLetter> => {
      const run = this.operations.on(connection);
      await lockLetters(run, [letter.id]);
      const [accepted] = await this.operations.accept(run, [asked]);
      if (accepted?.kind === 'conflict') throw new OperationConflictError(tenantId, operationKey);
      if (accepted?.kind === 'duplicate') throw refusal(letter.id, 'key_taken');
      // Read after accepting: the new operation may have the letter's own key.
      const locked = await peekAtLetter(run, letter.id);
      if (locked === undefined) throw refusal(letter.id, 'resolved');
      const judgement = judge(locked, { kind: 'edited' });
      if (judgement.kind === 'refused') throw refusal(letter.id, judgement.reason);
      if (isDryRun) throw new DryRun();
      await write(run, [{ ...locked, judgement }], author, this.options.retention);
      await run(LINK.with({ tenantId, operationKey, letterId: letter.id }));
      const { id: letterId, identity } = locked.letter;
      const details = identity ?? { tenantId: null, operationKey: null };
      await audit(run, 'redrive_edited', author, [
        { queue: letter.queue, letterId, tenantId, operationKey, details },
      ]);
      return locked.letter;
    };
    return this.database.inTransaction(make).catch((error: unknown) => {
      if (!(error instanceof DryRun)) throw error;
      return undefined;
    });
  }

  /**
   * The payload for the new operation. A job without a valid identity is kept as it came. If the library derived the
   * job's id, its data is the library's own envelope, with a payload encrypted for the operation that the envelope names.
   * Otherwise the data is what its producer wrote.
   */
  #payloadOf(letter: DeadLetterWithPayload): unknown {
    const payload = this.encryption.open(letter.payload, letterBinding(letter));
    if (letter.tenantId !== undefined) return payload;
    const provenance = provenanceOf({ id: letter.jobId, data: payload });
    if (provenance.kind === 'plain' || (provenance.kind === 'unconfirmed' && !provenance.hasDerivedId))
      return payload;
    const { envelope } = provenance;
    return this.encryption.open(envelope.payload, payloadBinding(envelope.operation));
  }
}

/** Rolls back what a dry run has written. */
class DryRun extends Error {}
