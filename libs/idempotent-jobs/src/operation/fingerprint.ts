import { hash } from 'node:crypto';
import canonicalizeModule from 'canonicalize';
import type { OperationIdentity } from './identity.js';

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
