import { hash } from 'node:crypto';
import canonicalizeModule from 'canonicalize';
import type { OperationIdentity } from './identity.js';

/** The package's types declare a `default` that its CommonJS module, seen from ESM, does not have. */
const canonicalize = canonicalizeModule as unknown as (value: unknown) => string;

/**
 * What an operation was asked to do, as canonical JSON (RFC 8785) of tenant, job name and payload. Canonical, because
 * Postgres's jsonb forgets the order of keys and a retry must not look like another request.
 */
export function canonicalRequest({ tenantId }: OperationIdentity, jobName: string, payload: unknown): string {
  return canonicalize([tenantId, jobName, payload]);
}

/**
 * The digest of a {@link canonicalRequest}: 64 hexadecimal digits of SHA-256. The operation key stays out: the
 * fingerprint is what tells two requests of one key apart.
 */
export function fingerprintOf(canonical: string): string {
  return hash('sha256', canonical, 'hex');
}

/** The payload's JSON text out of a {@link canonicalRequest}. */
export function payloadTextOf(canonical: string): string {
  const [, , payload] = JSON.parse(canonical) as [string, string, unknown];
  return JSON.stringify(payload);
}
