import type { OptionChecks } from '../options/option-checks.js';
import { type KeyRing, readKeyRing } from '../ledger/encryption/key-ring.js';

/** How jobs are signed, so that a client that can write to a queue cannot forge one. */
export interface SigningOptions {
  /**
   * The keys by their ids: 32 bytes each, raw or as base64 text. All of them verify. An id has 1 to 32 letters, digits,
   * ".", "_" or "-", and always means the same bytes.
   */
  readonly keys: Readonly<Record<string, Uint8Array | string>>;
  /** The id of the key that signs. */
  readonly current: string;
  /**
   * Until when jobs without a signature are run as well: those that were on their queues before signing was switched on,
   * and those of processes that do not sign yet. By the worker's clock. Default: they are refused.
   */
  readonly acceptUnsignedUntil?: Date;
}

/** Keys that were parsed, and until when unsigned jobs are accepted, in ms since 1970. */
export interface SigningRules {
  readonly ring: KeyRing;
  readonly acceptUnsignedUntil: number;
}

/** Parses the options. Returns undefined when nothing is signed and no signature is required. */
export function readSigning(
  checks: OptionChecks,
  options: SigningOptions | undefined,
): SigningRules | undefined {
  const ring = readKeyRing(checks, options, 'signing');
  const until = options?.acceptUnsignedUntil;
  if (until !== undefined && !(until instanceof Date && !Number.isNaN(until.getTime())))
    checks.fail('signing.acceptUnsignedUntil', until, 'a valid Date');
  return ring && { ring, acceptUnsignedUntil: until instanceof Date ? until.getTime() : -Infinity };
}

/**
 * Until when jobs without a signature are run, as ISO 8601. Undefined when they are not, or when no signature is required.
 */
export function unsignedUntil(rules: SigningRules | undefined, now: number): string | undefined {
  return rules !== undefined && now < rules.acceptUnsignedUntil
    ? new Date(rules.acceptUnsignedUntil).toISOString()
    : undefined;
}
