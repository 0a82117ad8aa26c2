import { hash } from 'node:crypto';
import canonicalizeModule from 'canonicalize';
import { InvalidPayloadError } from './errors.js';
import type { OperationIdentity } from './identity.js';
import { messageOf } from './thrown.js';

/**
 * The JSON text of a value, as queues and Postgres will store it.
 *
 * @throws InvalidPayloadError if JSON cannot express it (BigInt, cycles, functions, undefined), or Postgres could not
 *   store it (NUL characters and lone surrogates, which its jsonb refuses)
 */
export function toJsonText(what: string, value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw new InvalidPayloadError(`The ${what} cannot be written as JSON: ${messageOf(cause)}`, [], cause);
  }
  if (text === undefined) {
    throw new InvalidPayloadError(
      `The ${what} is ${typeof value}, which JSON cannot express. Pass an object.`,
    );
  }
  if (text.includes('\\u') && UNSTORABLE.test(text)) {
    throw new InvalidPayloadError(
      `The ${what} holds a NUL character or half of a surrogate pair, which Postgres cannot store. Remove it or encode the text, for example as base64.`,
    );
  }
  return text;
}

/** The escapes `\u0000` and `\ud800`–`\udfff`. Of the surrogates, JSON.stringify escapes only lone ones. */
const UNSTORABLE = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/;

/** The package's types declare a `default` that its CommonJS module, seen from ESM, does not have. */
const canonicalize = canonicalizeModule as unknown as (value: unknown) => string;

/**
 * What an operation was asked to do, as canonical JSON (RFC 8785) of tenant, job name and payload. It is canonical because
 * Postgres's jsonb forgets the order of keys, and a retry must not look like another request.
 */
export function canonicalRequest({ tenantId }: OperationIdentity, jobName: string, payload: unknown): string {
  return canonicalize([tenantId, jobName, payload]);
}

/**
 * The digest of a {@link canonicalRequest}: SHA-256 as 64 hexadecimal digits. It leaves out the operation key, because it
 * tells two requests of one key apart.
 */
export function fingerprintOf(canonical: string): string {
  return hash('sha256', canonical, 'hex');
}

/** Extracts the payload's JSON text from a {@link canonicalRequest}. */
export function payloadTextOf(canonical: string): string {
  const [, , payload] = JSON.parse(canonical) as [string, string, unknown];
  return JSON.stringify(payload);
}
