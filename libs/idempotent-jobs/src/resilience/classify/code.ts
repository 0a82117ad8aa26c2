import { getSystemErrorName } from 'node:util';
import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { signed } from './failure-sign.js';
import { type CodeMeaning, CODES, familyOf } from './codes.js';
import { orUndefined, read } from '../../operation/thrown.js';

/** @internal */
export function byCode(error: unknown): Failure | undefined {
  const code = codeOf(error);
  const meaning = code === undefined ? undefined : meaningOf(code, error);
  if (code === undefined || meaning === undefined) return undefined;
  const failure: Failure = { kind: kindOf(meaning.kind, code, error), code };
  return meaning.label === 'timeout' ? signed('timeout', failure) : failure;
}

/** Undefined for a service's own code: the service may have written the error's other fields too. */
function meaningOf(code: string, error: unknown): Meaning | undefined {
  return axiosMeaning(code, error) ?? CODES.get(code) ?? familyOf(code) ?? systemMeaning(code, error);
}

type Meaning = Pick<CodeMeaning, 'kind'> & Partial<CodeMeaning>;

/** Any error of the operating system may come from connecting, for example a socket's file that does not exist. */
function systemMeaning(code: string, error: unknown): Meaning | undefined {
  const errno = read(error, 'errno');
  const isSystems = typeof errno === 'number' && orUndefined(() => getSystemErrorName(errno)) === code;
  return isSystems && isConnecting(error) ? { kind: 'transient' } : undefined;
}

function kindOf(kind: FailureKind, code: string, error: unknown): FailureKind {
  if (isConnecting(error) || isRefusedStream(code, error)) return 'transient';
  return kind === 'transient' && wasConnected(error) ? 'in_doubt' : kind;
}

/** Nodemailer replaces the code of the error that broke its socket. */
function codeOf(error: unknown): string | undefined {
  const code = read(error, 'code');
  const original = code === 'ESOCKET' ? read(error, 'originalCode') : undefined;
  const told = typeof original === 'string' && CODES.has(original) ? original : code;
  return typeof told === 'string' ? told : undefined;
}

const NO_CONNECTION = new Set<unknown>(['CONNECTION_TIMEOUT', 'GREETING_TIMEOUT']);
const BEFORE_THE_REQUEST = new Set<unknown>(['lookup', 'connect', 'secureConnect']);
const NO_TLS = 'Client network socket disconnected before secure TLS connection was established';

/**
 * Whether no connection was made; the codes alone do not tell. Node tells by `syscall`, got by the `event` that it waited
 * for, nodemailer by `timeoutType`. Nodemailer's `command` does not tell: it is CONN in every phase of a lost connection.
 */
function isConnecting(error: unknown): boolean {
  const syscall = read(error, 'syscall');
  return (
    syscall === 'connect' ||
    (typeof syscall === 'string' && /^(?:getaddrinfo|query[A-Z])/.test(syscall)) ||
    NO_CONNECTION.has(read(error, 'timeoutType')) ||
    BEFORE_THE_REQUEST.has(read(error, 'event')) ||
    read(error, 'message') === NO_TLS
  );
}

/** A network can also become unreachable, and a host go down, while a request is on its way. */
function wasConnected(error: unknown): boolean {
  const syscall = read(error, 'syscall');
  return syscall === 'read' || syscall === 'write';
}

/** The server says that it has not looked at the request (RFC 9113, section 8.7). */
function isRefusedStream(code: string, error: unknown): boolean {
  const message = read(error, 'message');
  return (
    code === 'ERR_HTTP2_STREAM_ERROR' &&
    typeof message === 'string' &&
    message.includes('NGHTTP2_REFUSED_STREAM')
  );
}

const AXIOS_REFUSALS = new Set([
  'ERR_BAD_REQUEST',
  'ERR_BAD_OPTION',
  'ERR_BAD_OPTION_VALUE',
  'ERR_DEPRECATED',
  'ERR_FORM_DATA_DEPTH_EXCEEDED',
  'ERR_INVALID_URL',
  'ERR_NOT_SUPPORT',
]);

/** Axios rejects its own arguments. If it has made a request, it may have failed in the middle of it. */
function axiosMeaning(code: string, error: unknown): Pick<Failure, 'kind'> | undefined {
  if (read(error, 'isAxiosError') !== true || !AXIOS_REFUSALS.has(code)) return undefined;
  return { kind: read(error, 'request') === undefined ? 'permanent' : 'in_doubt' };
}

/** Codes by which a client only says that an inner error occurred. */
const WRAPPERS = new Set<unknown>(['ERR_NETWORK', 'ERR_GOT_REQUEST_ERROR', 'ERR_UPLOAD']);

/** Whether the cause knows more: axios and got repeat its code, but not what they were doing. @internal */
export function isWrapper(error: unknown): boolean {
  const code = read(error, 'code');
  return code !== undefined && (WRAPPERS.has(code) || read(read(error, 'cause'), 'code') === code);
}
