import { Inject, Injectable } from '@nestjs/common';
import type { OperationIdentity } from '../operation/identity.js';
import type { Author } from '../operation/ledger-action.js';
import { Database } from '../ledger/postgres/database.js';
import { type RunStatement, statement } from '../ledger/postgres/statement.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import { type Intent, judge, judgeReport, type Report } from './judge-letter.js';
import { lockLetters, lockOperation, peekAtLetter } from './lock.js';
import type { ReservedRedrive } from './bulk-redrive.store.js';
import { auditDone, type Judged, type JudgedReport, type KeptMs, write } from './write.js';

/** Releases letters that a bulk redrive may not bring back; they stay open. */
const LET_GO = statement(
  'let_go',
  'UPDATE {schema}.dead_letters SET redrive_id = NULL WHERE id = ANY (:letterIds::uuid[])',
);

/** What an operator may do with a letter alone. Editing a letter needs a new operation as well. */
export type SimpleIntent = Exclude<Intent, { readonly kind: 'edited' }>;

/**
 * Carries out what operators do to dead letters, and what webhooks report on operations. Each action is one transaction
 * of four steps: lock the rows, decide, write, audit. A process that dies in between has done nothing: Postgres rolls
 * back and releases the rows.
 */
@Injectable()
export class ActionStore {
  constructor(
    private readonly database: Database,
    @Inject(RESOLVED_OPTIONS) private readonly options: { readonly retention: KeptMs },
  ) {}

  /**
   * Does the same to all letters that exist. With `held`, a bulk redrive acts: only while its runner holds it; it
   * releases the letters that it may not bring back.
   */
  async act(
    letterIds: readonly string[],
    intent: SimpleIntent,
    author: Author,
    held?: ReservedRedrive,
  ): Promise<Judged[]> {
    return this.#inTransaction(async (run) => {
      const found = await lockLetters(run, letterIds, held);
      const judged = found.map((one) => ({ ...one, judgement: judge(one, intent) }));
      const overtaken = await write(run, judged, author, this.options.retention);
      const written = judged.map((one) =>
        overtaken.has(one.letter) ? { ...one, judgement: UNDER_WAY } : one,
      );
      if (held !== undefined) await letGo(run, written);
      await auditDone(run, AUDITED_AS[intent.kind], author, written, held?.id);
      return written;
    });
  }

  /** Returns what {@link act} would do now. It changes nothing, and waits for no lock. */
  async foresee(letterId: string, intent: SimpleIntent): Promise<Judged | undefined> {
    const found = await peekAtLetter((call) => this.database.run(call), letterId);
    return found && { ...found, judgement: judge(found, intent) };
  }

  /**
   * `asOf` is the time that the report is about; undefined means now. Returns undefined when the ledger has no such
   * operation.
   */
  async resolveDoubt(
    identity: OperationIdentity,
    report: Report,
    author: Author,
    asOf: Date | undefined,
  ): Promise<JudgedReport | undefined> {
    return this.#inTransaction(async (run) => {
      const found = await lockOperation(run, identity, asOf);
      if (found === undefined) return undefined;
      const judgement = judgeReport(found, report);
      const judged = { ...found, judgement };
      await write(run, [judged], author, this.options.retention);
      // An open letter is resolved as if an operator had done it.
      const action = judgement.kind === 'run_again' ? 'resolve_not_applied' : `report_${report.kind}`;
      await auditDone(run, action, author, [judged]);
      return judged;
    });
  }

  #inTransaction<T>(work: (run: RunStatement) => Promise<T>): Promise<T> {
    return this.database.inTransaction((connection) => work((call) => this.database.run(call, connection)));
  }
}

const UNDER_WAY = { kind: 'refused', reason: 'under_way' } as const;

const AUDITED_AS = {
  redrive: 'redrive',
  not_applied: 'resolve_not_applied',
  applied: 'resolve_applied',
  discard: 'discard',
} as const satisfies Record<SimpleIntent['kind'], string>;

async function letGo(run: RunStatement, written: readonly Judged[]): Promise<void> {
  const ids = written.flatMap(({ letter, judgement }) =>
    judgement.kind === 'refused' && judgement.reason !== 'resolved' ? [letter.id] : [],
  );
  if (ids.length > 0) await run(LET_GO.with({ letterIds: ids }));
}
