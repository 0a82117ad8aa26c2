import { UsageError } from '../operation/errors.js';
import { UUID } from './letter-arguments.js';
import type { LetterPosition } from './letter.queries.js';

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
