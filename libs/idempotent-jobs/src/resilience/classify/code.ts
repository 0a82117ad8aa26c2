import { getSystemErrorName } from 'node:util';
import type { Failure } from '../../operation/failure.js';
import type { FailureKind } from '../../operation/reasons.js';
import { signed } from './failure-sign.js';
import { orUndefined, read } from '../../operation/thrown.js';
import type { CodeLabel } from './code-label.js';

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

/** What a code means in any client. @internal */
export interface CodeMeaning {
  readonly kind: FailureKind;
  readonly label: CodeLabel;
}

const GROUPS: readonly (readonly [FailureKind, CodeLabel, string])[] = [
  // Never sent.
  [
    'transient',
    'refused',
    'ECONNREFUSED EHOSTUNREACH ENETUNREACH EHOSTDOWN ENETDOWN EADDRNOTAVAIL UND_ERR_CLOSED',
  ],
  [
    'transient',
    'dns',
    'ENOTFOUND EAI_AGAIN EAI_FAIL EDNS ENODATA EFORMERR ESERVFAIL EREFUSED EBADRESP ETIMEOUT',
  ],
  ['transient', 'timeout', 'UND_ERR_CONNECT_TIMEOUT ERR_SOCKET_CONNECTION_TIMEOUT ERR_TLS_HANDSHAKE_TIMEOUT'],
  // The handshake comes before the request. Certificates: https://nodejs.org/api/tls.html#x509-certificate-error-codes
  [
    'transient',
    'tls',
    `CERT_CHAIN_TOO_LONG CERT_HAS_EXPIRED CERT_NOT_YET_VALID CERT_REJECTED CERT_REVOKED CERT_SIGNATURE_FAILURE
     CERT_UNTRUSTED CRL_HAS_EXPIRED CRL_NOT_YET_VALID CRL_SIGNATURE_FAILURE DEPTH_ZERO_SELF_SIGNED_CERT
     ERROR_IN_CERT_NOT_AFTER_FIELD ERROR_IN_CERT_NOT_BEFORE_FIELD ERROR_IN_CRL_LAST_UPDATE_FIELD
     ERROR_IN_CRL_NEXT_UPDATE_FIELD HOSTNAME_MISMATCH INVALID_CA INVALID_PURPOSE PATH_LENGTH_EXCEEDED
     SELF_SIGNED_CERT_IN_CHAIN UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY UNABLE_TO_DECRYPT_CERT_SIGNATURE
     UNABLE_TO_DECRYPT_CRL_SIGNATURE UNABLE_TO_GET_CRL UNABLE_TO_GET_ISSUER_CERT UNABLE_TO_GET_ISSUER_CERT_LOCALLY
     UNABLE_TO_VERIFY_LEAF_SIGNATURE ERR_TLS_CERT_ALTNAME_INVALID ERR_TLS_CERT_ALTNAME_FORMAT UND_ERR_PRX_TLS
     ERR_SSL_WRONG_VERSION_NUMBER ERR_SSL_UNSUPPORTED_PROTOCOL ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE
     ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION`,
  ],
  // Sent, or on its way, without an answer. ECONNABORTED is also axios's code for its own timeout.
  ['in_doubt', 'timeout', 'ETIMEDOUT ECONNABORTED UND_ERR_HEADERS_TIMEOUT UND_ERR_BODY_TIMEOUT'],
  [
    'in_doubt',
    'connection_lost',
    `ECONNRESET EPIPE ESOCKET ECONNECTION EPROTO UND_ERR_SOCKET UND_ERR_INFO UND_ERR_DESTROYED
     ERR_STREAM_PREMATURE_CLOSE ERR_SOCKET_CLOSED ERR_HTTP2_STREAM_ERROR ERR_HTTP2_STREAM_CANCEL
     ERR_HTTP2_SESSION_ERROR ERR_HTTP2_GOAWAY_SESSION ERR_HTTP2_INVALID_SESSION ERR_NETWORK ERR_GOT_REQUEST_ERROR
     ERR_UPLOAD`,
  ],
  ['in_doubt', 'cancelled', 'UND_ERR_ABORTED UND_ERR_ABORT ABORT_ERR ERR_CANCELED ERR_ABORTED'],
  // An answer came, but it could not be read.
  [
    'in_doubt',
    'bad_answer',
    `ERR_BAD_RESPONSE ERR_READING_RESPONSE_STREAM ERR_BODY_PARSE_FAILURE ERR_HTTP_CONTENT_LENGTH_MISMATCH
     ERR_TOO_MANY_REDIRECTS ERR_FR_TOO_MANY_REDIRECTS ERR_FR_REDIRECTION_FAILURE UND_ERR_HEADERS_OVERFLOW
     UND_ERR_RES_CONTENT_LENGTH_MISMATCH UND_ERR_RES_EXCEEDED_MAX_SIZE`,
  ],
  // Rejected by the client before anything was sent.
  ['permanent', 'programming', 'UND_ERR_INVALID_ARG UND_ERR_NOT_SUPPORTED ERR_UNSUPPORTED_PROTOCOL'],
];

/** The codes of Node, undici, axios and got. @internal */
export const CODES: ReadonlyMap<string, CodeMeaning> = new Map(
  GROUPS.flatMap(([kind, label, codes]) =>
    codes.split(/\s+/).map((code): [string, CodeMeaning] => [code, { kind, label }]),
  ),
);

/** The meaning of a code of which only the family is known. @internal */
export function familyOf(code: string): CodeMeaning | undefined {
  // Node's parser could not read an answer.
  if (/^HPE_\w{1,60}$/.test(code)) return { kind: 'in_doubt', label: 'bad_answer' };
  // It also occurs in the middle of a connection; and in TLS 1.3 a client may have sent data before it is refused.
  if (/^ERR_SSL_\w{1,80}$/.test(code)) return { kind: 'in_doubt', label: 'tls' };
  return undefined;
}
