import type { FailureKind } from '../../operation/reasons.js';
import type { CodeLabel } from './code-label.js';

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
