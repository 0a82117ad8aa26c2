import { CODES, familyOf } from './codes.js';
import { OWN_CODES } from './own.js';
import { isMailCode } from './smtp.js';
import { isTypeOrmName } from './typeorm.js';
import type { Failure } from '../../operation/failure.js';

/** All labels, for series that must exist from the start. */
export const REASON_LABELS = [
  /** Nothing was sent: no connection was made. */
  'refused',
  'dns',
  'tls',
  'timeout',
  /** Sent, or on its way, when the connection broke. */
  'connection_lost',
  /** An answer that could not be read. */
  'bad_answer',
  /** The service asked for fewer calls. */
  'throttled',
  'http_4xx',
  'http_5xx',
  'smtp',
  'database',
  /** The library refused another operation that the handler asked for. */
  'operation',
  'lease_lost',
  'lease_expired',
  'cancelled',
  'shutdown',
  /** The handler or its `classify` said what kind of failure it was. */
  'said',
  'programming',
  'other',
] as const;

/** Why attempts fail, with few enough values for the label of a metric. */
export type CodeLabel = (typeof REASON_LABELS)[number];

/** The failure codes that are words of the library or names of errors. */
const WORDS = new Map<string, CodeLabel>([
  ['timeout', 'timeout'],
  ['lease_lost', 'lease_lost'],
  ['lease_expired', 'lease_expired'],
  ['cancelled', 'cancelled'],
  ['shutdown', 'shutdown'],
  ['classify', 'said'],
  ['TransientError', 'said'],
  ['RetryLaterError', 'said'],
  ['PermanentError', 'said'],
  ['InDoubtError', 'said'],
  ['UnrecoverableError', 'said'],
  ['AbortError', 'cancelled'],
  ['TimeoutError', 'timeout'],
  ['DependencyTimeoutError', 'timeout'],
  ['fetch_failed', 'connection_lost'],
  ['aws_RequestTimeout', 'timeout'],
  ['aws_RequestTimeoutException', 'timeout'],
  ...Object.keys(OWN_CODES).map((code): [string, CodeLabel] => [code.toLowerCase(), 'operation']),
  ['ledger_unavailable', 'database'],
]);

const PREFIXES: readonly (readonly [string, CodeLabel])[] = [
  ['http_4', 'http_4xx'],
  ['http_5', 'http_5xx'],
  // What is left are refusals that are worth another try.
  ['aws_', 'http_4xx'],
  ['smtp_', 'smtp'],
  ['sql_', 'database'],
  ['pg_', 'database'],
];

/** The label for a free-text failure code; `other` when no rule of the library gives it. */
export function codeLabelOf({ kind, code: reason, isThrottled }: Failure): CodeLabel {
  if (isThrottled === true) return 'throttled';
  if (kind === 'programming') return 'programming';
  const known = WORDS.get(reason) ?? CODES.get(reason)?.label ?? familyOf(reason)?.label;
  if (known !== undefined) return known;
  if (isMailCode(reason)) return 'smtp';
  if (isTypeOrmName(reason)) return 'database';
  return PREFIXES.find(([prefix]) => reason.startsWith(prefix))?.[1] ?? 'other';
}
