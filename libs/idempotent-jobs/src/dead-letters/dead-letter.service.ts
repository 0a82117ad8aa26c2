import { Injectable } from '@nestjs/common';
import { JobEvents } from '../events/job-events.js';
import { DeadLetterNotFoundError, InvalidPayloadError, UsageError } from '../operation/errors.js';
import {
  assertName,
  jobNameProblem,
  type OperationIdentity,
  operationKeyProblem,
  tenantIdProblem,
} from '../operation/identity.js';
import { toJsonText } from '../operation/json.js';
import { assertAuthor, type LedgerAction } from '../operation/ledger-action.js';
import type { EffectVerdict } from '../operation/effect.js';
import {
  letterBinding,
  resultBinding,
  isEncrypted,
  looksEncrypted,
  Encryption,
} from '../ledger/encryption/encryption.js';
import { Due } from '../producer/due.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import { ActionStore, type SimpleIntent } from './action.store.js';
import type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRef,
  DeadLetterWithPayload,
  DeadLetterPage,
  LetterResult,
  RedriveManyOptions,
  RedriveOptions,
  RedrivePlan,
} from './dead-letter.js';
import { EditedRedrive, type OperationEdit } from './edited-redrive.js';
import {
  assertCount,
  assertDeadline,
  assertFilter,
  assertId,
  assertText,
  readPace,
  readCursor,
} from './letter-arguments.js';
import { LetterQueries } from './letter.queries.js';
import type { Redrive } from './bulk-redrive.js';
import { BulkRedriveRunner } from './bulk-redrive.runner.js';
import { letterClosed } from './lock.js';
import { BulkRedriveStore } from './bulk-redrive.store.js';
import { redriveRunning, refusal } from './judge-letter.js';

/**
 * The operator's API: read dead letters, run their operations again, or close them. Every change names its actor and a
 * reason, and writes a row to `job_actions` in the same transaction.
 *
 * Inside a tenant's frame the service sees only that tenant's letters; outside of any frame it sees all of them.
 */
@Injectable()
export class DeadLetterService {
  /** @internal Injected. */
  constructor(
    private readonly letters: LetterQueries,
    private readonly store: BulkRedriveStore,
    private readonly actions: ActionStore,
    private readonly edited: EditedRedrive,
    private readonly runner: BulkRedriveRunner,
    private readonly encryption: Encryption,
    private readonly tenants: TenantContext,
    private readonly events: JobEvents,
    private readonly due: Due,
  ) {}

  /**
   * Lists letters, newest first.
   *
   * @param options.open true: only open ones (the default); false: only resolved ones; `'any'`: both
   * @param options.limit how many, 1 to 1,000. Default 50.
   * @param options.after the `next` of the previous page
   * @throws UsageError for a filter or a cursor that cannot be read
   */
  async list(
    filter: DeadLetterFilter = {},
    {
      open = true,
      limit = 50,
      after,
    }: { readonly open?: boolean | 'any'; readonly limit?: number; readonly after?: string } = {},
  ): Promise<DeadLetterPage> {
    assertCount('limit', limit, 1000);
    if (typeof open !== 'boolean' && open !== 'any')
      throw new UsageError(`open must be true, false or "any".`);
    const isOpen = open === 'any' ? undefined : open;
    return this.letters.list(this.#seen(filter), isOpen, readCursor(after), limit);
  }

  /**
   * Counts open letters by cause, the largest group first.
   *
   * @param options.limit how many groups, 1 to 1,000. Default 50.
   */
  async groups(
    filter: DeadLetterFilter = {},
    { limit = 50 }: { readonly limit?: number } = {},
  ): Promise<DeadLetterGroup[]> {
    assertCount('limit', limit, 1000);
    return this.letters.groups(this.#seen(filter), limit);
  }

  /**
   * Returns one letter with its payload.
   *
   * @throws DeadLetterNotFoundError; RecordUnreadableError if the payload cannot be decrypted here
   */
  async get(letter: DeadLetterRef): Promise<DeadLetterWithPayload> {
    const found = await this.#find(letter);
    return { ...found, payload: this.encryption.open(found.payload, letterBinding(found)) };
  }

  /** Finds a letter, its payload as it is stored: most actions on a letter need no key. */
  async #find(letter: DeadLetterRef): Promise<DeadLetterWithPayload> {
    const id = typeof letter === 'string' ? assertId(letter) : await this.#findOpen(letter);
    const found = await this.letters.get(id);
    const tenantId = this.tenants.current;
    if (found === undefined || (tenantId !== undefined && found.tenantId !== tenantId))
      throw notFound(letter);
    return found;
  }

  /**
   * Runs a letter's operation again, under the same key and tenant, with fresh attempts and a fresh time budget. An
   * operation that has completed in the meantime does not run: its letter is closed as `completed`.
   *
   * @throws DeadLetterNotFoundError; DeadLetterRefusedError if the letter is resolved, under way, in doubt (resolve it),
   *   a conflict or without identity (give it one by {@link redriveEdited}), or past its producer's deadline (give a new
   *   one)
   */
  async redrive(letter: DeadLetterRef, options: RedriveOptions): Promise<LetterResult> {
    return this.#runAgain(letter, 'redrive', options);
  }

  /**
   * Starts a bulk redrive: runs all matching letters of a queue again. It sends a few canaries first, then the rest no
   * faster than `ratePerSecond`, and stops once too many fail again. It goes on in the background, in any living process
   * of the application; see {@link getRedrive}. A queue has one bulk redrive at a time.
   *
   * @throws DeadLetterNotFoundError if no letter matches; DeadLetterRefusedError while another redrive of the queue runs
   */
  async redriveMany(
    filter: DeadLetterFilter & { readonly queue: string },
    options: RedriveManyOptions,
  ): Promise<RedrivePlan> {
    const author = assertAuthor(options);
    const pace = readPace(options);
    if (filter?.queue === undefined)
      throw new UsageError('redriveMany() needs the source queue: { queue: "charges", … }.');
    const seen = this.#seen(filter);
    const { redrivable, others } = await this.store.count(seen);
    if (redrivable === 0) throw nothingMatches(filter.queue, others);
    const plan = { letters: redrivable, leftOut: others };
    if (options.dryRun === true) {
      const [latest] = await this.store.list(filter.queue, undefined, 1);
      if (latest?.status === 'running') throw redriveRunning(filter.queue);
      return { ...plan, redriveId: undefined, dryRun: true };
    }
    const started = await this.store.start(seen, pace, author);
    if (started === 'running') throw redriveRunning(filter.queue);
    if (started === 'nothing') throw nothingMatches(filter.queue, others);
    this.runner.wake();
    return { ...plan, redriveId: started.id, dryRun: false };
  }

  /**
   * Returns the progress of a bulk redrive. Inside a tenant's frame, only if the redrive is limited to that tenant.
   *
   * @throws DeadLetterNotFoundError
   */
  async getRedrive(redriveId: string): Promise<Redrive> {
    const redrive = await this.store.get(assertId(redriveId), this.tenants.current);
    if (redrive === undefined)
      throw new DeadLetterNotFoundError(`There is no redrive ${redriveId}.`, { redriveId });
    return redrive;
  }

  /** Lists bulk redrives, newest first. @param options.limit 1 to 1,000. Default 20. */
  async redrives({ queue, limit = 20 }: { readonly queue?: string; readonly limit?: number } = {}): Promise<
    Redrive[]
  > {
    assertCount('limit', limit, 1000);
    assertText('queue', queue);
    return this.store.list(queue, this.tenants.current, limit);
  }

  /**
   * Cancels a bulk redrive. Operations that it has brought back go on; once this has returned, it brings back no more.
   *
   * @throws DeadLetterNotFoundError; DeadLetterRefusedError if it has ended
   */
  async cancelRedrive(redriveId: string, action: Omit<LedgerAction, 'dryRun'>): Promise<Redrive> {
    const author = assertAuthor(action);
    const { status } = await this.getRedrive(redriveId);
    const isCancelled =
      status === 'running' && (await this.store.end(redriveId, 'cancelled', author.note, { author }));
    if (!isCancelled) throw refusal(redriveId, 'redrive_ended');
    return this.getRedrive(redriveId);
  }

  /**
   * Makes a new operation from a letter that has no valid identity, or whose key or payload was wrong. The new operation
   * gets the identity given here, and the letter's payload unless another is given. It refers to the letter it came from.
   * Off unless `forRoot({ deadLetters: { editedRedrive: true } })`.
   *
   * @throws UsageError where it is off, or if the queue is not registered here
   * @throws OperationConflictError if the key belongs to another request; DeadLetterNotFoundError, DeadLetterRefusedError
   */
  async redriveEdited(
    letter: DeadLetterRef,
    edit: OperationEdit,
    action: LedgerAction,
  ): Promise<LetterResult> {
    const author = assertAuthor(action);
    if (edit === null || typeof edit !== 'object')
      throw new UsageError('redriveEdited() needs the new identity: { tenantId, operationKey }.');
    const problem =
      tenantIdProblem(edit.tenantId) ??
      operationKeyProblem(edit.operationKey) ??
      (edit.jobName === undefined ? undefined : jobNameProblem(edit.jobName));
    if (problem !== undefined) throw new UsageError(`redriveEdited(): ${problem}`);
    const found = await this.#find(letter);
    if (this.tenants.current !== undefined) this.tenants.assert(edit.tenantId);
    const closed = await this.edited.make(found, edit, author, action.dryRun === true);
    if (closed !== undefined) {
      this.events.emit(letterClosed(closed, 'redriven', author.actor));
      await this.due.announce(found.queue);
    }
    return { letterId: found.id, outcome: 'redriven', dryRun: action.dryRun === true };
  }

  /**
   * Resolves an operation in doubt with what the operator found out: `applied(result)` completes it, and the result is
   * replayed from then on; `notApplied()` runs it again. Jobs that the handler would have enqueued afterwards are not
   * known here, and are not enqueued.
   *
   * @throws DeadLetterNotFoundError; DeadLetterRefusedError if it is resolved or not in doubt; InvalidPayloadError for a
   *   result that JSON cannot express; UsageError for a result where the operation is encrypted and there are no keys
   *   here
   */
  async resolve(
    letter: DeadLetterRef,
    verdict: EffectVerdict,
    options: RedriveOptions,
  ): Promise<LetterResult> {
    if (verdict?.kind === 'not_applied') return this.#runAgain(letter, 'not_applied', options);
    if (verdict?.kind !== 'applied') throw new UsageError('resolve() needs applied(result) or notApplied().');
    assertAuthor(options);
    const text = verdict.result === undefined ? undefined : toJsonText('result', verdict.result);
    const found = await this.#find(letter);
    const result = options.dryRun === true ? null : this.#encrypted(text, found);
    return this.#act(found.id, { kind: 'applied', result }, options);
  }

  /**
   * Closes a letter for good. Its operation does not run again: it stays or becomes dead.
   *
   * @throws DeadLetterNotFoundError; DeadLetterRefusedError if the letter is resolved
   */
  async discard(letter: DeadLetterRef, action: LedgerAction): Promise<LetterResult> {
    assertAuthor(action);
    const { id } = await this.#find(letter);
    return this.#act(id, { kind: 'discard' }, action);
  }

  async #runAgain(
    letter: DeadLetterRef,
    kind: 'redrive' | 'not_applied',
    options: RedriveOptions,
  ): Promise<LetterResult> {
    assertAuthor(options);
    assertDeadline(options.deadline);
    const { id } = await this.#find(letter);
    return this.#act(id, { kind, deadline: options.deadline }, options);
  }

  /** @throws DeadLetterRefusedError, DeadLetterNotFoundError */
  async #act(
    id: string,
    intent: SimpleIntent,
    { actor, note, dryRun = false }: LedgerAction,
  ): Promise<LetterResult> {
    const judged = dryRun
      ? await this.actions.foresee(id, intent)
      : (await this.actions.act([id], intent, { actor, note }))[0];
    if (judged === undefined) throw notFound(id);
    const { letter, judgement } = judged;
    if (judgement.kind === 'refused') throw refusal(id, judgement.reason);
    const { kind, as } = judgement;
    if (!dryRun) this.events.emit(letterClosed(letter, as, actor));
    if (!dryRun && kind === 'run_again') await this.due.announce(letter.queue);
    return { letterId: id, outcome: as === 'not_applied' ? 'redriven' : as, dryRun };
  }

  /** The result that the operator gives, as it is stored. */
  #encrypted(text: string | undefined, letter: DeadLetterWithPayload): string | null {
    if (text === undefined) return null;
    if (isEncrypted(JSON.parse(text))) throw new InvalidPayloadError(looksEncrypted('The result'));
    if (!this.encryption.isOn && isEncrypted(letter.payload))
      throw new UsageError(
        'The operation is encrypted, and no keys are configured here: its result would be kept in plain text. Resolve it in the application, or without a result.',
      );
    const identity = identityIn(letter);
    // Without an identity there is no operation to complete.
    return identity === undefined ? text : this.encryption.encrypt(text, resultBinding(identity));
  }

  async #findOpen(operation: Exclude<DeadLetterRef, string>): Promise<string> {
    if (operation === null || typeof operation !== 'object')
      throw new UsageError('Name a letter by its id, or by { tenantId, operationKey }.');
    const { tenantId, operationKey } = assertName(operation);
    if (this.tenants.current !== undefined) this.tenants.assert(tenantId);
    const id = await this.letters.findOpen(tenantId, operationKey);
    if (id === undefined) throw notFound(operation);
    return id;
  }

  /** The filter, narrowed to what the caller may see. */
  #seen<F extends DeadLetterFilter>(filter: F): F {
    assertFilter(filter);
    const { tenants } = this;
    return tenants.current === undefined ? filter : { ...filter, tenantId: tenants.assert(filter.tenantId) };
  }
}

/** The identity under which the ledger has a letter's operation. */
function identityIn({ tenantId, operationKey, stepOf, step }: DeadLetter): OperationIdentity | undefined {
  return tenantId === undefined || operationKey === undefined
    ? undefined
    : assertName({ tenantId, operationKey: stepOf ?? operationKey, step });
}

function nothingMatches(queue: string, others: number): DeadLetterNotFoundError {
  const hint =
    others > 0
      ? ` ${others} match that need a decision of their own: resolve those in doubt or expired, and give those in conflict or without an identity one by hand.`
      : '';
  return new DeadLetterNotFoundError(
    `No open letter of queue "${queue}" matches that could be redriven; nothing was started.${hint}`,
    { queue, others },
  );
}

function notFound(letter: DeadLetterRef): DeadLetterNotFoundError {
  return typeof letter === 'string'
    ? new DeadLetterNotFoundError(`There is no dead letter ${letter}. List them to see their ids.`, {
        letterId: letter,
      })
    : new DeadLetterNotFoundError(
        `Operation "${letter.operationKey}" of tenant "${letter.tenantId}" has no open dead letter.`,
        { tenantId: letter.tenantId, operationKey: letter.operationKey },
      );
}
