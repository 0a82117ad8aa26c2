import {
  type Failure,
  type FailureKind,
  InDoubtError,
  PermanentError,
  RetryLaterError,
  TransientError,
} from './failure.js';

/** A look at one error of a chain: its kind if it tells, else undefined. */
export type Classify = (error: unknown) => Failure | FailureKind | undefined;

/**
 * Says what an error tells about the side effect. Looks at the error and at what lies beneath it: an AggregateError's
 * `errors`, then its own properties, then `driverError` (TypeORM) and `cause`; ten errors at most. Among the errors of
 * an aggregate the one that leaves a doubt counts; else the first that tells something. Survives cycles and throwing
 * getters. Never throws.
 *
 * @param overrides asked before the built-in rules; may throw, which counts as not knowing
 */
export function classify(error: unknown, overrides?: Classify): Failure {
  try {
    const failure = look(error, overrides, new Set());
    if (failure !== undefined) return failure;
    // A TypeError, but no bug: fetch wraps whatever happened on the way, and how far it got is in a cause nobody knows.
    if (read(error, 'message') === 'fetch failed') return { kind: 'in_doubt', reason: 'fetch_failed' };
    if (isBug(error)) return { kind: 'programming', reason: String(read(error, 'name')) };
  } catch {
    // A proxy that cannot even be looked at.
  }
  return { kind: 'unknown', reason: 'unclassified' };
}

/** Not SyntaxError: it comes from parsing an answer, and an answer says that something was there to give it. */
function isBug(error: unknown): boolean {
  return error instanceof TypeError || error instanceof ReferenceError || error instanceof RangeError;
}

const MAX_LOOKS = 10;

function look(error: unknown, overrides: Classify | undefined, seen: Set<unknown>): Failure | undefined {
  if (error === undefined || error === null || seen.has(error) || seen.size >= MAX_LOOKS) return undefined;
  seen.add(error);
  // What was said on purpose, or answered by the other side, goes before what lies beneath.
  const word =
    asked(overrides, error) ??
    asked((one) => byOwnCode(one) ?? said(one) ?? byHttpStatus(one) ?? bySmtp(one), error);
  if (word !== undefined) return word;
  const beneath = read(error, 'errors');
  return (
    lookAmong(Array.isArray(beneath) ? beneath : [], overrides, seen) ??
    asked((one) => byCode(one) ?? byName(one), error) ??
    look(read(error, 'driverError'), overrides, seen) ??
    look(read(error, 'cause'), overrides, seen)
  );
}

/** The sibling that leaves a doubt, else the first that tells something. Too many to look at leave a doubt as well. */
function lookAmong(
  errors: readonly unknown[],
  overrides: Classify | undefined,
  seen: Set<unknown>,
): Failure | undefined {
  let first: Failure | undefined;
  for (const one of errors) {
    if (one === undefined || one === null || seen.has(one)) continue;
    if (seen.size >= MAX_LOOKS) return first && { kind: 'in_doubt', reason: 'too_many_errors' };
    const failure = look(one, overrides, seen);
    if (failure?.kind === 'in_doubt') return failure;
    first ??= failure;
  }
  return first;
}

function asked(rule: Classify | undefined, error: unknown): Failure | undefined {
  try {
    const answer = rule?.(error);
    if (answer === undefined || typeof answer === 'string')
      return answer && { kind: answer, reason: 'classify' };
    return answer.retryAfterMs === undefined
      ? answer
      : { ...answer, retryAfterMs: waitOf(answer.retryAfterMs) };
  } catch {
    return undefined;
  }
}

function said(error: unknown): Failure | undefined {
  if (error instanceof RetryLaterError) {
    return { kind: 'transient', reason: error.name, retryAfterMs: waitOf(error.delayMs) };
  }
  if (error instanceof TransientError) return { kind: 'transient', reason: error.name };
  if (error instanceof PermanentError) return { kind: 'permanent', reason: error.name };
  if (error instanceof InDoubtError) return { kind: 'in_doubt', reason: error.name };
  return undefined;
}

/** Nest's HttpException, axios, undici and most SDKs carry the status in one of these places. */
function byHttpStatus(error: unknown): Failure | undefined {
  const response = read(error, 'response');
  const status = [read(error, 'status'), read(error, 'statusCode'), read(response, 'status')].find(
    (value): value is number => typeof value === 'number' && value >= 400 && value < 600,
  );
  if (status === undefined) return undefined;
  const reason = `http_${status}`;
  const retryAfterMs = retryAfterOf(read(error, 'headers') ?? read(response, 'headers'));
  if (status === 429 || (status === 503 && retryAfterMs !== undefined))
    return { kind: 'transient', reason, retryAfterMs };
  // 409 answers a keyed request whose key is in progress, 425 one that came too early: this attempt did nothing.
  if (status === 409 || status === 425) return { kind: 'transient', reason };
  // 408 is also what a local timeout throws (Nest's RequestTimeoutException), which says nothing about the other side.
  if (status === 408) return { kind: 'in_doubt', reason };
  return { kind: status >= 500 ? 'in_doubt' : 'permanent', reason };
}

/**
 * SMTP replies (RFC 5321, section 4.2.2). 421, 450 and 452 say that the server has not taken the message. Any other
 * 4xx to the message itself (451: "local error in processing") does not say how far it got.
 */
function bySmtp(error: unknown): Failure | undefined {
  const code = read(error, 'responseCode');
  if (typeof code !== 'number') return undefined;
  const reason = `smtp_${code}`;
  if (code >= 500) return { kind: 'permanent', reason };
  const isRefusal = code === 421 || code === 450 || code === 452;
  return { kind: isRefusal || read(error, 'command') !== 'DATA' ? 'transient' : 'in_doubt', reason };
}

const NEVER_SENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EDNS',
  'UND_ERR_CONNECT_TIMEOUT',
]);

const SENT_UNANSWERED = new Set([
  'ETIMEDOUT',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ESOCKET',
  'ECONNECTION',
  'UND_ERR_SOCKET',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_ABORTED',
  'ABORT_ERR',
]);

const NO_CONNECTION = new Set<unknown>(['CONNECTION_TIMEOUT', 'GREETING_TIMEOUT']);

function byCode(error: unknown): Failure | undefined {
  const code = read(error, 'code');
  if (typeof code !== 'string') return undefined;
  // The same codes also name a connection that never came to be. Nodemailer's `command` does not tell: it says CONN
  // in every phase of a lost connection; its `timeoutType` does.
  const connecting = read(error, 'syscall') === 'connect' || NO_CONNECTION.has(read(error, 'timeoutType'));
  if (NEVER_SENT.has(code) || (connecting && SENT_UNANSWERED.has(code)))
    return { kind: 'transient', reason: code };
  if (SENT_UNANSWERED.has(code)) return { kind: 'in_doubt', reason: code };
  if (/^[0-9A-Z]{5}$/.test(code) && typeof read(error, 'severity') === 'string') return bySqlState(code);
  return undefined;
}

/** https://www.postgresql.org/docs/current/errcodes-appendix.html */
function bySqlState(code: string): Failure {
  const reason = `sql_${code}`;
  // connection_failure and transaction_resolution_unknown: how far it got is not known.
  if (code === '08006' || code === '08007') return { kind: 'in_doubt', reason };
  const isTransient =
    ['40001', '40P01', '55P03', '57P01', '57P02', '57P03'].includes(code) || /^(?:53|08)/.test(code);
  if (isTransient) return { kind: 'transient', reason };
  return /^(?:22|23|42)/.test(code) ? { kind: 'permanent', reason } : { kind: 'unknown', reason };
}

/** What the library's own refusals say, thrown through a handler. */
const OWN_CODES: Readonly<Record<string, FailureKind>> = {
  OPERATION_CONFLICT: 'permanent',
  OPERATION_DEAD: 'permanent',
  OPERATION_BUSY: 'transient',
  // The same call under the same key finds out what became of it.
  LEDGER_UNAVAILABLE: 'transient',
  OPERATION_IN_DOUBT: 'in_doubt',
};

function byOwnCode(error: unknown): Failure | undefined {
  const code = read(error, 'code');
  if (typeof code !== 'string' || !Object.hasOwn(OWN_CODES, code)) return undefined;
  const retryAfterMs = read(error, 'retryAfterMs');
  return {
    kind: OWN_CODES[code] as FailureKind,
    reason: code.toLowerCase(),
    ...(typeof retryAfterMs === 'number' && { retryAfterMs: waitOf(retryAfterMs) }),
  };
}

function byName(error: unknown): Failure | undefined {
  const name = read(error, 'name');
  if (name === 'AbortError' || name === 'TimeoutError') return { kind: 'in_doubt', reason: name };
  // BullMQ's way to say: do not try again.
  if (name === 'UnrecoverableError') return { kind: 'permanent', reason: name };
  return undefined;
}

/** Retry-After in seconds or as a date (RFC 9110, section 10.2.3). */
function retryAfterOf(headers: unknown): number | undefined {
  const get = read(headers, 'get');
  const raw: unknown =
    typeof get === 'function'
      ? quietly(() => (get as (name: string) => unknown).call(headers, 'retry-after'))
      : (read(headers, 'retry-after') ?? read(headers, 'Retry-After'));
  if ((typeof raw !== 'string' && typeof raw !== 'number') || String(raw).trim() === '') return undefined;
  const seconds = Number(raw);
  return waitOf(Number.isFinite(seconds) ? seconds * 1000 : Date.parse(String(raw)) - Date.now());
}

/** No service means a longer wait, and Postgres and timers could not count it. */
const MAX_WAIT_MS = 30 * 24 * 60 * 60 * 1000;

/** A wait that makes sense: not in the past, not beyond {@link MAX_WAIT_MS}; undefined for what is no number. */
function waitOf(ms: number): number | undefined {
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), MAX_WAIT_MS);
}

function quietly(look: () => unknown): unknown {
  try {
    return look();
  } catch {
    return undefined;
  }
}

function read(holder: unknown, property: string): unknown {
  if (holder === null || (typeof holder !== 'object' && typeof holder !== 'function')) return undefined;
  return quietly(() => (holder as Record<string, unknown>)[property]);
}
