import { CODES, familyOf } from './code.js';
import { OWN_CODES } from './own.js';
import { isMailCode } from './smtp.js';
import { isTypeOrmName } from './database.js';
import type { Failure } from '../../operation/failure.js';

/** All labels, for series that must exist from the start. */
export const CODE_LABELS = [
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
export type CodeLabel = (typeof CODE_LABELS)[number];

/** The failure codes that are words of the library or names of errors. */
const WORDS = new Map<string, CodeLabel>([
  ...labelled(
    'timeout',
    'timeout TimeoutError DependencyTimeoutError aws_RequestTimeout aws_RequestTimeoutException',
  ),
  ...labelled('connection_lost', 'fetch_failed'),
  ...labelled('operation', Object.keys(OWN_CODES).join(' ').toLowerCase()),
  ...labelled('database', 'ledger_unavailable'),
  ...labelled('lease_lost', 'lease_lost'),
  ...labelled('lease_expired', 'lease_expired'),
  ...labelled('cancelled', 'cancelled AbortError'),
  ...labelled('shutdown', 'shutdown'),
  ...labelled(
    'said',
    'classify TransientError RetryLaterError PermanentError InDoubtError UnrecoverableError',
  ),
]);

function labelled(label: CodeLabel, codes: string): [string, CodeLabel][] {
  return codes.split(' ').map((code) => [code, label]);
}

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
export function codeLabelOf({ kind, code, isThrottled }: Failure): CodeLabel {
  if (isThrottled === true) return 'throttled';
  if (kind === 'programming') return 'programming';
  const known = WORDS.get(code) ?? CODES.get(code)?.label ?? familyOf(code)?.label;
  if (known !== undefined) return known;
  if (isMailCode(code)) return 'smtp';
  if (isTypeOrmName(code)) return 'database';
  return PREFIXES.find(([prefix]) => code.startsWith(prefix))?.[1] ?? 'other';
}
