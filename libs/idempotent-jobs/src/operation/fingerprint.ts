import { hash } from 'node:crypto';
import canonicalizeModule from 'canonicalize';
import type { OperationIdentity } from './identity.js';

/** The package's types declare a `default` that its CommonJS module, seen from ESM, does not have. */
const canonicalize = canonicalizeModule as unknown as (value: unknown) => string;

/**
 * What an operation was asked to do, in 64 hexadecimal digits: SHA-256 over the canonical JSON (RFC 8785) of tenant,
 * job name and payload. Canonical, because Postgres's jsonb forgets the order of keys and a retry must not look like
 * another request. The operation key stays out: the fingerprint is what tells two requests of one key apart.
 */
export function fingerprintOf(identity: OperationIdentity, jobName: string, payload: unknown): string {
  const canonical = canonicalize([identity.tenantId, jobName, payload]);
  return hash('sha256', canonical, 'hex');
}
