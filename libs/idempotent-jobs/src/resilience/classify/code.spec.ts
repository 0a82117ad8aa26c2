import { constants } from 'node:os';
import { describe, expect, it } from 'vitest';
import { classify } from './classify.js';
import type { FailureKind } from '../../operation/reasons.js';

function failing(properties: object, cause?: unknown): Error {
  return Object.assign(new Error('failed', cause === undefined ? {} : { cause }), properties);
}

describe('classify: what never got as far as a request', () => {
  it.each([
    ['a certificate that is over', { code: 'CERT_HAS_EXPIRED' }],
    ['a certificate of an unknown issuer', { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' }],
    ['a certificate of nobody', { code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }],
    ['a chain that ends at nobody', { code: 'SELF_SIGNED_CERT_IN_CHAIN' }],
    ['a certificate of another host', { code: 'ERR_TLS_CERT_ALTNAME_INVALID' }],
    ['an answer in plain text', { code: 'ERR_SSL_WRONG_VERSION_NUMBER' }],
    ['a handshake that took too long', { code: 'ERR_TLS_HANDSHAKE_TIMEOUT' }],
    ['a proxy that does not speak TLS', { code: 'UND_ERR_PRX_TLS' }],
    ['a client that was closed', { code: 'UND_ERR_CLOSED' }],
    ['a host that is down', { code: 'EHOSTDOWN' }],
    [
      'a socket file that is not there',
      { code: 'ENOENT', errno: -constants.errno.ENOENT, syscall: 'connect' },
    ],
    ['no port left', { code: 'EADDRNOTAVAIL', syscall: 'connect' }],
    ['a name server that failed', { code: 'ESERVFAIL', syscall: 'queryA' }],
    ['a name without an address', { code: 'ENODATA', syscall: 'queryAaaa' }],
    ['a resolver that failed', { code: 'EAI_FAIL', syscall: 'getaddrinfo' }],
    ['got, waiting for an address', { code: 'ETIMEDOUT', event: 'lookup' }],
    ['got, waiting for a connection', { code: 'ETIMEDOUT', event: 'connect' }],
    ['got, waiting for a handshake', { code: 'ETIMEDOUT', event: 'secureConnect' }],
    [
      'a handshake that was cut off',
      {
        code: 'ECONNRESET',
        message: 'Client network socket disconnected before secure TLS connection was established',
      },
    ],
    [
      'a stream that the server has not looked at',
      {
        code: 'ERR_HTTP2_STREAM_ERROR',
        message: 'Stream closed with error code NGHTTP2_REFUSED_STREAM',
      },
    ],
  ])('is transient: %s', (_what, properties) => {
    expect(classify(failing(properties))).toEqual({ kind: 'transient', code: properties.code });
  });
});

describe('classify: what may have arrived', () => {
  it.each([
    ['got, waiting for an answer', { code: 'ETIMEDOUT', event: 'response' }],
    ['got, sending', { code: 'ETIMEDOUT', event: 'send' }],
    ['a network that went away while reading', { code: 'ENETUNREACH', syscall: 'read' }],
    ['a host that went away while writing', { code: 'EHOSTUNREACH', syscall: 'write' }],
    ['an answer that is not HTTP', { code: 'HPE_INVALID_CONSTANT' }],
    ['headers that are too large', { code: 'HPE_HEADER_OVERFLOW' }],
    ['headers that are too large for undici', { code: 'UND_ERR_HEADERS_OVERFLOW' }],
    ['an answer of another length', { code: 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH' }],
    ['a client that was destroyed', { code: 'UND_ERR_DESTROYED' }],
    ['TLS that broke later', { code: 'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC' }],
    ['a stream of HTTP/2 that failed', { code: 'ERR_HTTP2_STREAM_ERROR' }],
    ['a session of HTTP/2 that failed', { code: 'ERR_HTTP2_SESSION_ERROR' }],
    ['a body that ended too soon', { code: 'ERR_STREAM_PREMATURE_CLOSE' }],
    ['axios, after its timeout', { code: 'ECONNABORTED', isAxiosError: true }],
    ['axios, when it was cancelled', { code: 'ERR_CANCELED', isAxiosError: true }],
    ['axios, without a word of what it was', { code: 'ERR_NETWORK', isAxiosError: true }],
    ['axios, with too large an answer', { code: 'ERR_BAD_RESPONSE', isAxiosError: true }],
    ['axios, cut off in an answer', { code: 'ERR_BAD_RESPONSE', response: { status: 200 } }],
    ['axios, led around in circles', { code: 'ERR_FR_TOO_MANY_REDIRECTS', isAxiosError: true }],
    ['axios, with too much to send', { code: 'ERR_BAD_REQUEST', isAxiosError: true, request: {} }],
    ['got, when it was aborted', { code: 'ERR_ABORTED' }],
    ['got, reading the answer', { code: 'ERR_READING_RESPONSE_STREAM', response: { statusCode: 200 } }],
    ['got, making sense of the answer', { code: 'ERR_BODY_PARSE_FAILURE', response: { statusCode: 200 } }],
  ])('is in doubt: %s', (_what, properties) => {
    expect(classify(failing(properties))).toEqual({ kind: 'in_doubt', code: properties.code });
  });
});

describe('classify: what the client refuses itself', () => {
  it.each([
    ['axios', { code: 'ERR_BAD_REQUEST', isAxiosError: true }],
    ['axios', { code: 'ERR_BAD_OPTION_VALUE', isAxiosError: true }],
    ['axios', { code: 'ERR_INVALID_URL', isAxiosError: true }],
    ['undici', { code: 'UND_ERR_INVALID_ARG' }],
    ['undici', { code: 'UND_ERR_NOT_SUPPORTED' }],
    ['got', { code: 'ERR_UNSUPPORTED_PROTOCOL' }],
  ])('is permanent: %s, %o', (_who, properties) => {
    expect(classify(failing(properties))).toEqual({ kind: 'permanent', code: properties.code });
  });

  it('is no rule for the same words of others', () => {
    expect(classify(failing({ code: 'ERR_BAD_REQUEST' })).kind).toBe('unknown');
  });
});

describe('classify: clients that wrap', () => {
  it.each<[string, string, object, FailureKind]>([
    ['while connecting', 'ETIMEDOUT', { code: 'ETIMEDOUT', syscall: 'connect' }, 'transient'],
    ['while reading', 'ETIMEDOUT', { code: 'ETIMEDOUT', syscall: 'read' }, 'in_doubt'],
    ['of an unknown moment', 'ECONNRESET', { code: 'ECONNRESET' }, 'in_doubt'],
    ['whose cause knows more', 'ERR_NETWORK', { code: 'ENOTFOUND', syscall: 'getaddrinfo' }, 'transient'],
    ['whose cause knows nothing', 'ERR_NETWORK', {}, 'in_doubt'],
    ['whose cause knows more', 'ERR_GOT_REQUEST_ERROR', { code: 'CERT_HAS_EXPIRED' }, 'transient'],
    ['whose cause says something else', 'ECONNRESET', { code: 'ECONNREFUSED' }, 'in_doubt'],
  ])('goes by the cause where it may know more: %s, %s', (_when, code, cause, kind) => {
    expect(classify(failing({ code }, failing(cause))).kind).toBe(kind);
  });

  it('finds all addresses refused beneath axios', () => {
    const addresses = ['192.0.2.1', '2001:db8::1'].map((address) =>
      failing({ code: 'ETIMEDOUT', syscall: 'connect', address }),
    );
    const cause = Object.assign(new AggregateError(addresses), { code: 'ETIMEDOUT' });
    expect(classify(failing({ code: 'ETIMEDOUT', isAxiosError: true }, cause))).toEqual({
      kind: 'transient',
      code: 'ETIMEDOUT',
    });
  });

  it('reads an error that is its own cause by its code', () => {
    const error = failing({ code: 'ECONNRESET' });
    Object.assign(error, { cause: error });
    expect(classify(error)).toEqual({ kind: 'in_doubt', code: 'ECONNRESET' });
  });
});
