import { Inject, Injectable } from '@nestjs/common';
import { createHmac, type KeyObject, timingSafeEqual } from 'node:crypto';
import type { Envelope, Signature } from './envelope.js';
import { RESOLVED_OPTIONS } from '../option-checks/resolved-options.token.js';
import type { OptionChecks } from '../option-checks/option-checks.js';
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

/** What a signature vouches for, besides its time: everything that decides which operation is run, and how. */
export interface SignedClaims {
  readonly queue: string;
  readonly jobName: string;
  /** Of tenant, job name and payload. The verifier computes it anew. */
  readonly fingerprint: string;
  readonly operation: Omit<Envelope['operation'], 'fingerprint' | 'trace' | 'redriveTrace'>;
}

/** The verdict on a signature. `unsigned` means that there is none, although one is required. */
export type SignatureVerdict = 'accepted' | 'unsigned' | 'forged';

/**
 * Signs jobs that are put on queues, and verifies jobs that come off them: HMAC-SHA256. Traces are not signed, because
 * they decide nothing. Without keys it signs nothing and accepts everything.
 */
@Injectable()
export class Signer {
  readonly #rules: SigningRules | undefined;

  constructor(@Inject(RESOLVED_OPTIONS) { signing }: { readonly signing: SigningRules | undefined }) {
    this.#rules = signing;
  }

  /** Whether jobs are signed. */
  get isOn(): boolean {
    return this.#rules !== undefined;
  }

  /** Whether jobs without a signature are run at the given time, in ms since 1970. */
  acceptsUnsigned(now: number): boolean {
    return this.#rules === undefined || now < this.#rules.acceptUnsignedUntil;
  }

  /** `at`: when the job may first run, in ms since 1970. Returns undefined without keys. */
  sign(claims: SignedClaims, at: number): Signature | undefined {
    if (this.#rules === undefined) return undefined;
    const { keys, current } = this.#rules.ring;
    const mac = macOf(keys.get(current) as KeyObject, current, claims, at);
    return { alg: ALGORITHM, key: current, at, mac: mac.toString('base64url') };
  }

  /** Takes the same time whatever is wrong with a signature of a known key. */
  verify(signature: unknown, claims: SignedClaims): SignatureVerdict {
    if (this.#rules === undefined) return 'accepted';
    if (signature === undefined) return this.acceptsUnsigned(Date.now()) ? 'accepted' : 'unsigned';
    if (!isSignature(signature)) return 'forged';
    const key = this.#rules.ring.keys.get(signature.key);
    if (key === undefined) return 'forged';
    const mac = macOf(key, signature.key, claims, signature.at);
    const given = Buffer.from(signature.mac, 'base64url');
    return given.length === mac.length && timingSafeEqual(given, mac) ? 'accepted' : 'forged';
  }
}

const ALGORITHM = 'HS256';

function isSignature(value: unknown): value is Signature {
  if (value === null || typeof value !== 'object') return false;
  const { alg, key, at, mac } = value as Partial<Record<keyof Signature, unknown>>;
  return alg === ALGORITHM && typeof key === 'string' && typeof at === 'number' && typeof mac === 'string';
}

/** The parts are encoded as a JSON array, so no two claims have the same text. */
function macOf(key: KeyObject, keyId: string, claims: SignedClaims, at: number): Buffer {
  const { queue, jobName, fingerprint, operation } = claims;
  const { tenantId, operationKey, deadlineAt, retryPolicy, isSchedule, row } = operation;
  const text = JSON.stringify([
    'nestjs-idempotent-jobs job',
    ALGORITHM,
    keyId,
    at,
    queue,
    jobName,
    tenantId,
    operationKey,
    fingerprint,
    deadlineAt ?? null,
    retryPolicy ?? null,
    isSchedule ?? null,
    row ?? null,
  ]);
  return createHmac('sha256', key).update(text).digest();
}
