import { definedOf } from '../option-checks/option-checks.js';
import { UsageError } from '../operation/errors.js';
import type { DeadLetterFilter } from './dead-letter.js';
import { DEAD_LETTER_REASONS } from '../operation/reasons.js';
import { DEFAULT_PACE, MAX_RATE_PER_SECOND, type RedrivePace } from './bulk-redrive.js';

/* Checks what callers pass to the service. Each check throws a UsageError that says what is allowed. */

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The end of the years that both Postgres and JavaScript can express, with room to spare. */
const MAX_TIME_MS = Date.UTC(9999, 0);
const MAX_CANARY = 1_000_000;

export function assertId(id: string): string {
  if (typeof id !== 'string' || !UUID.test(id))
    throw new UsageError('An id of a dead letter or a redrive is a UUID, as list() shows it.');
  return id;
}

export function assertDeadline(deadline: Date | undefined): void {
  if (deadline !== undefined && !(deadline instanceof Date && deadline.getTime() > Date.now()))
    throw new UsageError('deadline must be a Date in the future.');
}

export function assertCount(option: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 1 || value > max)
    throw new UsageError(`${option} must be a whole number from 1 to ${max}, but is ${value}.`);
}

export function assertFilter(filter: DeadLetterFilter): void {
  if (filter === null || typeof filter !== 'object') throw new UsageError('The filter must be an object.');
  const { reason, from, until, queue, tenantId, operationKey, fingerprint, ...others } = filter;
  const [other] = Object.keys(others);
  // A misspelt condition would let a filter match more than was meant.
  if (other !== undefined)
    throw new UsageError(
      `"${other}" is no condition of a filter; there are queue, tenantId, operationKey, reason, fingerprint, from and until.`,
    );
  if (reason !== undefined && !DEAD_LETTER_REASONS.includes(reason))
    throw new UsageError(`reason is "${reason}", but must be one of ${DEAD_LETTER_REASONS.join(', ')}.`);
  for (const [name, date] of Object.entries({ from, until })) {
    if (date !== undefined && !(date instanceof Date && Math.abs(date.getTime()) <= MAX_TIME_MS))
      throw new UsageError(`${name} must be a valid Date.`);
  }
  for (const [name, text] of Object.entries({ queue, tenantId, operationKey, fingerprint })) {
    assertText(name, text);
  }
}

/** @throws UsageError for anything but undefined or a text that Postgres can compare */
export function assertText(name: string, text: string | undefined): void {
  if (text === undefined) return;
  if (typeof text !== 'string' || text === '' || text.includes('\0') || !text.isWellFormed())
    throw new UsageError(`${name} must be a text that is not empty, without NUL characters.`);
}

export function readPace(options: Partial<RedrivePace>): RedrivePace {
  const { ratePerSecond, canary, maxFailureShare } = { ...DEFAULT_PACE, ...definedOf(options) };
  if (!(ratePerSecond > 0 && ratePerSecond <= MAX_RATE_PER_SECOND))
    throw new UsageError(
      `ratePerSecond must be more than 0 and at most ${MAX_RATE_PER_SECOND}, but is ${ratePerSecond}.`,
    );
  if (!Number.isInteger(canary) || canary < 0 || canary > MAX_CANARY)
    throw new UsageError(`canary must be a whole number from 0 to ${MAX_CANARY}, but is ${canary}.`);
  if (!(maxFailureShare >= 0 && maxFailureShare <= 1))
    throw new UsageError(`maxFailureShare must be from 0 to 1, but is ${maxFailureShare}.`);
  return { ratePerSecond, canary, maxFailureShare };
}

/** The position where a page of letters ended: the next page begins after it. */
export interface LetterPosition {
  readonly createdUs: string;
  readonly id: string;
}

/** The end of a page as text, which the caller passes back for the next page. */
export function writeCursor({ createdUs, id }: LetterPosition): string {
  return Buffer.from(`${createdUs}.${id}`).toString('base64url');
}

/** @throws UsageError for text that is no cursor */
export function readCursor(after: string | undefined): LetterPosition | undefined {
  if (after === undefined) return undefined;
  if (typeof after !== 'string') throw new UsageError('after must be the `next` of an earlier page.');
  const [createdUs = '', id = '', ...rest] = Buffer.from(after, 'base64url').toString().split('.');
  if (!/^\d{1,17}$/.test(createdUs) || !UUID.test(id) || rest.length > 0)
    throw new UsageError('after must be the `next` of an earlier page.');
  return { createdUs, id };
}
