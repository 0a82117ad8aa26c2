import { DeadLetterNotFoundError, UsageError } from '../operation/errors.js';
import {
  assertIdentity,
  jobNameProblem,
  operationKeyProblem,
  tenantIdProblem,
} from '../operation/identity.js';
import { toJsonText } from '../operation/json.js';
import type { Database } from '../postgres/database.js';
import type { EffectVerdict } from '../reconcile/verdict.js';
import type { TenantContext } from '../tenancy/tenant-context.js';
import type {
  DeadLetter,
  DeadLetterFilter,
  DeadLetterGroup,
  DeadLetterRef,
  DeadLetterResolution,
  DeadLetterWithPayload,
} from './dead-letter.js';
import { APPLY, DISCARD } from './close.statements.js';
import type { EditedRedrive, OperationEdit } from './edited-redrive.js';
import { DEAD_LETTER_REASONS } from './letter.js';
import { type LetterPosition, LetterQueries } from './letter.queries.js';
import { DEFAULT_PACE, MAX_RATE_PER_SECOND, type Redrive, type RedrivePace } from './redrive.js';
import type { AddressedLetter, BringBackMode, RedriveStore, Verdict } from './redrive.store.js';
import { redriveRunning, refused } from './refusals.js';
import { assertAuthor, type LedgerAction } from '../operation/ledger-action.js';

/** How one letter is redriven or resolved. */
export interface RedriveOptions extends LedgerAction {
  /** A deadline in place of the one its producer gave, which may have passed. */
  readonly deadline?: Date;
}

/** What became of one letter. `completed`: the operation had completed already, so nothing is run. */
export interface RedriveResult {
  readonly letterId: string;
  readonly outcome: 'redriven' | 'completed';
  readonly dryRun: boolean;
}

/** Options of {@link DeadLetterService.redriveMany}. */
export interface RedriveManyOptions extends LedgerAction, Partial<RedrivePace> {}

/** What {@link DeadLetterService.redriveMany} has begun, or would begin. */
export interface RedrivePlan {
  /** Undefined in a dry run. */
  readonly redriveId: string | undefined;
  readonly letters: number;
  /** Letters that match, but need a decision of their own: in doubt, in conflict, or without an identity. */
  readonly leftOut: number;
}

/** A page of letters. */
export interface DeadLetterPage {
  readonly letters: readonly DeadLetter[];
  /** Hand it to the next call; undefined: there is no more. */
  readonly next: string | undefined;
}

/** Hears of every letter that was closed. */
export type OnClosed = (letter: AddressedLetter, as: DeadLetterResolution, actor: string) => void;

/** What the service needs of the application it belongs to. */
export interface DeadLetterServices {
  readonly database: Database;
  readonly store: RedriveStore;
  readonly tenants: TenantContext;
  readonly edited: EditedRedrive;
  /** For queues that have told no retention of their own, in ms. */
  readonly retention: { readonly completedMs: number; readonly lettersMs: number };
  readonly onClosed: OnClosed;
  /** Operations of that queue have become due. */
  readonly onDue: (queue: string) => Promise<void>;
  readonly wakeRunner: () => void;
}

/**
 * The way back: look at dead letters, run their operations again, or close them. Everything that changes something names
 * its actor and a reason, and leaves a row in `job_actions`, in the same transaction.
 *
 * Inside a tenant's frame only that tenant's letters exist; outside of any, all of them.
 */
export class DeadLetterService {
  readonly #queries: LetterQueries;

  /** @internal Injected. */
  constructor(private readonly services: DeadLetterServices) {
    this.#queries = new LetterQueries(services.database);
  }

  /**
   * Letters, newest first.
   *
   * @param options.open only open ones (default true), only resolved ones (false), or both (`'any'`)
   * @param options.limit how many, 1 to 1,000. Default 50.
   * @param options.after the `next` of the page before
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
    const isOpen = open === 'any' ? undefined : open;
    const page = await this.#queries.list(this.#seen(filter), isOpen, readCursor(after), limit);
    const isLast = page.letters.length < limit || page.last === undefined;
    return { letters: page.letters, next: isLast ? undefined : writeCursor(page.last as LetterPosition) };
  }

  /** Open letters by cause, the largest group first. @param options.limit how many groups, 1 to 1,000. Default 50. */
  async groups(
    filter: DeadLetterFilter = {},
    { limit = 50 }: { readonly limit?: number } = {},
  ): Promise<DeadLetterGroup[]> {
    assertCount('limit', limit, 1000);
    return this.#queries.groups(this.#seen(filter), limit);
  }

  /** One letter, with its payload. @throws DeadLetterNotFoundError */
  async get(letter: DeadLetterRef): Promise<DeadLetterWithPayload> {
    const id = typeof letter === 'string' ? assertId(letter) : await this.#findOpen(letter);
    const found = await this.#queries.get(id);
    const tenantId = this.services.tenants.current;
    if (found === undefined || (tenantId !== undefined && found.tenantId !== tenantId))
      throw notFound(letter);
    return found;
  }

  /**
   * Runs a letter's operation again, under the same key and tenant, with fresh attempts and a fresh time budget. An
   * operation that has completed meanwhile is not run: its letter is closed as `completed`.
   *
   * @throws DeadLetterNotFoundError, or DeadLetterRefusedError if it is resolved, under way, in doubt (resolve it), a
   *   conflict or without identity (give it one by {@link redriveEdited}), or past its producer's deadline (give another)
   */
  async redrive(letter: DeadLetterRef, options: RedriveOptions): Promise<RedriveResult> {
    const { letterId, dryRun, verdict } = await this.#bringBack(letter, 'redrive', options, options.deadline);
    return { letterId, outcome: verdict === 'completed' ? 'completed' : 'redriven', dryRun };
  }

  /**
   * Runs all matching letters of a queue again, carefully: a few canaries first, the rest no faster than
   * `ratePerSecond`, and not at all once too many fail again. Goes on in the background, in whatever process of the
   * application is alive; see {@link getRedrive}. One redrive at a time per queue.
   *
   * @throws DeadLetterNotFoundError if no letter matches; DeadLetterRefusedError while another redrive of the queue runs
   */
  async redriveMany(
    filter: DeadLetterFilter & { readonly queue: string },
    options: RedriveManyOptions,
  ): Promise<RedrivePlan> {
    const author = assertAuthor(options);
    const pace = readPace(options);
    if (typeof filter.queue !== 'string' || filter.queue === '')
      throw new UsageError('redriveMany() needs the source queue: { queue: "charges", … }.');
    const seen = this.#seen(filter);
    const { redrivable, others } = await this.services.store.count(seen);
    if (redrivable === 0) {
      const hint =
        others > 0
          ? ` ${others} match that need a decision of their own: resolve those in doubt, and give conflicts and letters without an identity one by hand.`
          : '';
      throw new DeadLetterNotFoundError(
        `No open letter of queue "${filter.queue}" matches that could be redriven; nothing was started.${hint}`,
        { queue: filter.queue, others },
      );
    }
    if (options.dryRun === true) return { redriveId: undefined, letters: redrivable, leftOut: others };
    const redriveId = await this.services.store.start(seen, pace, author).catch((error: unknown) => {
      throw (error as { code?: unknown }).code === '23505' ? redriveRunning(filter.queue) : error;
    });
    if (redriveId === undefined) throw notFound(`queue ${filter.queue}`);
    this.services.wakeRunner();
    return { redriveId, letters: redrivable, leftOut: others };
  }

  /** How far a redrive of many is. @throws DeadLetterNotFoundError */
  async getRedrive(redriveId: string): Promise<Redrive> {
    const redrive = await this.services.store.get(assertId(redriveId));
    if (redrive === undefined)
      throw new DeadLetterNotFoundError(`There is no redrive ${redriveId}.`, { redriveId });
    return redrive;
  }

  /** Redrives of many, newest first. @param options.limit 1 to 1,000. Default 20. */
  async redrives({ queue, limit = 20 }: { readonly queue?: string; readonly limit?: number } = {}): Promise<
    Redrive[]
  > {
    assertCount('limit', limit, 1000);
    return this.services.store.list(queue, limit);
  }

  /**
   * Ends a redrive of many. What it has brought back goes on; once this has returned, nothing more is brought back.
   *
   * @throws DeadLetterNotFoundError, or DeadLetterRefusedError if it has ended
   */
  async cancelRedrive(redriveId: string, action: Omit<LedgerAction, 'dryRun'>): Promise<Redrive> {
    const author = assertAuthor(action);
    const { status } = await this.getRedrive(redriveId);
    const isCancelled =
      status === 'running' &&
      (await this.services.store.end(redriveId, 'cancelled', author.note, { author }));
    if (!isCancelled) throw refused(redriveId, 'redrive_ended');
    return this.getRedrive(redriveId);
  }

  /**
   * Makes a new operation out of a letter that has no valid identity, or whose key or payload was wrong: with the
   * identity given here, and the letter's payload unless another is given. The new operation names the letter it came
   * from. Off unless `forRoot({ deadLetters: { editedRedrive: true } })`.
   *
   * @throws UsageError where it is off, or if the queue is not registered here
   * @throws OperationConflictError if the key belongs to another request; DeadLetterNotFoundError, DeadLetterRefusedError
   */
  async redriveEdited(
    letter: DeadLetterRef,
    edit: OperationEdit,
    action: LedgerAction,
  ): Promise<RedriveResult> {
    const author = assertAuthor(action);
    const problem =
      tenantIdProblem(edit.tenantId) ??
      operationKeyProblem(edit.operationKey) ??
      (edit.jobName === undefined ? undefined : jobNameProblem(edit.jobName));
    if (problem !== undefined) throw new UsageError(`redriveEdited(): ${problem}`);
    const found = await this.get(letter);
    if (found.resolved !== undefined) throw refused(found.id, 'resolved');
    await this.services.edited.make(found, edit, author, action.dryRun === true);
    if (action.dryRun !== true) {
      this.services.onClosed(addressOf(found), 'redriven', author.actor);
      await this.services.onDue(found.queue);
    }
    return { letterId: found.id, outcome: 'redriven', dryRun: action.dryRun === true };
  }

  /**
   * Ends an operation in doubt with what a person found out: `applied(result)` completes it, and the result is replayed
   * from then on; `notApplied()` runs it again. What the handler would have enqueued after it is not known here.
   *
   * @throws DeadLetterNotFoundError, or DeadLetterRefusedError if it is resolved or not in doubt; InvalidPayloadError for a
   *   result that JSON cannot express
   */
  async resolve(
    letter: DeadLetterRef,
    verdict: EffectVerdict,
    options: RedriveOptions,
  ): Promise<{ readonly letterId: string; readonly dryRun: boolean }> {
    if (verdict?.kind === 'not_applied') {
      const { letterId, dryRun } = await this.#bringBack(letter, 'not_applied', options, options.deadline);
      return { letterId, dryRun };
    }
    if (verdict?.kind !== 'applied') throw new UsageError('resolve() needs applied(result) or notApplied().');
    const author = assertAuthor(options);
    const result = verdict.result === undefined ? null : toJsonText('result', verdict.result);
    const addressed = await this.#address(letter);
    const { id } = addressed;
    const dryRun = options.dryRun === true;
    if (dryRun) {
      const judged = await this.services.store.judge(id, 'applied', undefined);
      if (judged !== 'allowed') throw this.#refusal(letter, id, judged);
    } else {
      const values = [id, author.actor, author.note, result, this.services.retention.completedMs];
      await this.#close(letter, id, () => this.services.database.run<CloseRow>(APPLY, values));
      this.services.onClosed(addressed, 'applied', author.actor);
    }
    return { letterId: id, dryRun };
  }

  /**
   * Closes a letter for good; its operation is not run, and stays or becomes dead.
   *
   * @throws DeadLetterNotFoundError, or DeadLetterRefusedError if it is resolved
   */
  async discard(
    letter: DeadLetterRef,
    action: LedgerAction,
  ): Promise<{ readonly letterId: string; readonly dryRun: boolean }> {
    const author = assertAuthor(action);
    const addressed = await this.#address(letter);
    const { id } = addressed;
    const dryRun = action.dryRun === true;
    if (dryRun) {
      if ((await this.#queries.get(id))?.resolved !== undefined) throw refused(id, 'resolved');
    } else {
      const { lettersMs, completedMs } = this.services.retention;
      const values = [id, author.actor, author.note, Math.max(lettersMs, completedMs)];
      await this.#close(letter, id, () => this.services.database.run<CloseRow>(DISCARD, values));
      this.services.onClosed(addressed, 'discarded', author.actor);
    }
    return { letterId: id, dryRun };
  }

  async #bringBack(
    letter: DeadLetterRef,
    mode: BringBackMode,
    action: LedgerAction,
    deadline: Date | undefined,
  ): Promise<{ letterId: string; dryRun: boolean; verdict: Verdict }> {
    const author = assertAuthor(action);
    assertDeadline(deadline);
    const addressed = await this.#address(letter);
    const dryRun = action.dryRun === true;
    const verdict = dryRun
      ? await this.services.store.judge(addressed.id, mode, deadline)
      : (await this.services.store.bringBack([addressed], mode, author, deadline)).get(addressed.id);
    if (verdict !== 'allowed' && verdict !== 'completed') throw this.#refusal(letter, addressed.id, verdict);
    if (!dryRun) {
      const closedAs = mode === 'redrive' ? 'redriven' : 'not_applied';
      this.services.onClosed(addressed, verdict === 'completed' ? 'completed' : closedAs, author.actor);
      if (verdict === 'allowed') await this.services.onDue(addressed.queue);
    }
    return { letterId: addressed.id, dryRun, verdict };
  }

  async #close(letter: DeadLetterRef, id: string, close: () => Promise<CloseRow[]>): Promise<void> {
    const [row] = await close();
    if (row?.verdict !== 'allowed') throw this.#refusal(letter, id, row?.verdict);
  }

  #refusal(letter: DeadLetterRef, id: string, verdict: Verdict | undefined): Error {
    return verdict === undefined || verdict === 'allowed' ? notFound(letter) : refused(id, verdict);
  }

  async #address(letter: DeadLetterRef): Promise<AddressedLetter> {
    return addressOf(await this.get(letter));
  }

  async #findOpen(operation: Exclude<DeadLetterRef, string>): Promise<string> {
    const { tenantId, operationKey } = assertIdentity(operation);
    if (this.services.tenants.current !== undefined) this.services.tenants.assert(tenantId);
    const id = await this.#queries.findOpen(tenantId, operationKey);
    if (id === undefined) throw notFound(operation);
    return id;
  }

  /** What the caller may see of what the filter asks for. */
  #seen<F extends DeadLetterFilter>(filter: F): F {
    assertFilter(filter);
    const { tenants } = this.services;
    return tenants.current === undefined ? filter : { ...filter, tenantId: tenants.assert(filter.tenantId) };
  }
}

function addressOf({ id, queue, jobName, jobId, tenantId, operationKey }: DeadLetter): AddressedLetter {
  const hasIdentity = tenantId !== undefined && operationKey !== undefined;
  return { id, queue, jobName, jobId, identity: hasIdentity ? { tenantId, operationKey } : undefined };
}

interface CloseRow {
  readonly verdict: Verdict;
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

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

function assertId(id: string): string {
  if (!UUID.test(id))
    throw new UsageError('An id of a dead letter or a redrive is a UUID, as list() shows it.');
  return id;
}

function assertDeadline(deadline: Date | undefined): void {
  if (deadline !== undefined && !(deadline instanceof Date && deadline.getTime() > Date.now()))
    throw new UsageError('deadline must be a Date in the future.');
}

function assertCount(option: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 1 || value > max)
    throw new UsageError(`${option} must be a whole number from 1 to ${max}, but is ${value}.`);
}

function assertFilter({
  reason,
  from,
  until,
  queue,
  tenantId,
  operationKey,
  fingerprint,
}: DeadLetterFilter): void {
  if (reason !== undefined && !DEAD_LETTER_REASONS.includes(reason))
    throw new UsageError(`reason is "${reason}", but must be one of ${DEAD_LETTER_REASONS.join(', ')}.`);
  for (const [name, date] of Object.entries({ from, until })) {
    if (date !== undefined && !(date instanceof Date && !Number.isNaN(date.getTime())))
      throw new UsageError(`${name} must be a valid Date.`);
  }
  for (const [name, text] of Object.entries({ queue, tenantId, operationKey, fingerprint })) {
    if (text !== undefined && (typeof text !== 'string' || text === '' || text.includes('\0')))
      throw new UsageError(`${name} must be a text that is not empty.`);
  }
}

function readPace(options: Partial<RedrivePace>): RedrivePace {
  const { ratePerSecond, canary, maxFailureShare } = { ...DEFAULT_PACE, ...definedOf(options) };
  if (!(ratePerSecond > 0 && ratePerSecond <= MAX_RATE_PER_SECOND))
    throw new UsageError(
      `ratePerSecond must be more than 0 and at most ${MAX_RATE_PER_SECOND}, but is ${ratePerSecond}.`,
    );
  if (!Number.isInteger(canary) || canary < 0)
    throw new UsageError(`canary must be a whole number, 0 or more, but is ${canary}.`);
  if (!(maxFailureShare >= 0 && maxFailureShare <= 1))
    throw new UsageError(`maxFailureShare must be from 0 to 1, but is ${maxFailureShare}.`);
  return { ratePerSecond, canary, maxFailureShare };
}

function definedOf<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}

function writeCursor({ createdUs, id }: LetterPosition): string {
  return Buffer.from(`${createdUs}.${id}`).toString('base64url');
}

function readCursor(after: string | undefined): LetterPosition | undefined {
  if (after === undefined) return undefined;
  const [createdUs = '', id = '', ...rest] = Buffer.from(after, 'base64url').toString().split('.');
  if (!/^-?\d{1,18}$/.test(createdUs) || !UUID.test(id) || rest.length > 0)
    throw new UsageError('after must be the `next` of an earlier page.');
  return { createdUs, id };
}
