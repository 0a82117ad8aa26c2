import type { OptionChecks } from '../options/option-checks.js';
import { type KeyRing, readKeyRing } from '../ledger/encryption/key-ring.js';

/** How jobs are signed, so that nobody who can write to a queue can make one up. */
export interface SigningOptions {
  /**
   * The keys by their ids: 32 bytes each, as they are or as base64 text. All of them verify. An id has 1 to 32 letters,
   * digits, ".", "_" or "-", and always means the same bytes.
   */
  readonly keys: Readonly<Record<string, Uint8Array | string>>;
  /** The id of the key that signs. */
  readonly current: string;
  /**
   * Until when jobs without a signature are run as well: those that were on their queues before signing was switched on,
   * and those of processes that do not sign yet. By the worker's clock. Default: none are.
   */
  readonly acceptUnsignedUntil?: Date;
}

/** Keys that were read, and until when unsigned jobs are accepted, in ms since 1970. */
export interface SigningRules {
  readonly ring: KeyRing;
  readonly acceptUnsignedUntil: number;
}

/** Reads the options. Undefined: nothing is signed, and nothing has to be. */
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

/** Until when jobs without a signature are run as well, as ISO 8601; undefined: none are, or nothing has to be signed. */
export function unsignedUntil(rules: SigningRules | undefined, now: number): string | undefined {
  return rules !== undefined && now < rules.acceptUnsignedUntil
    ? new Date(rules.acceptUnsignedUntil).toISOString()
    : undefined;
}
