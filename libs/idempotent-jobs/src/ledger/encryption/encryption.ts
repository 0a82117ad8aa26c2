import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto';
import { Inject, Injectable } from '@nestjs/common';
import { RESOLVED_OPTIONS } from '../../option-checks/resolved-options.token.js';
import { RecordUnreadableError } from '../../operation/errors.js';
import type { KeyRing } from './key-ring.js';
import { assertName, type OperationIdentity } from '../../operation/identity.js';
import { storableJobId } from '../../operation/job.js';

/** Where an encrypted value belongs. It opens nowhere else: not for another tenant, operation or column. */
export interface Binding {
  /** Null for the payload of a job without a valid identity. */
  readonly tenantId: string | null;
  readonly operationKey: string;
  readonly kind: 'payload' | 'result';
}

export function payloadBinding({ tenantId, operationKey }: OperationIdentity): Binding {
  return { tenantId, operationKey, kind: 'payload' };
}

export function resultBinding({ tenantId, operationKey }: OperationIdentity): Binding {
  return { tenantId, operationKey, kind: 'result' };
}

/**
 * Where a letter's payload belongs: to its operation, whose own payload it becomes when the letter is redriven. Without an
 * operation it belongs to the job, by the id under which Postgres stores it, which may differ from the one in Redis.
 */
export function letterBinding(letter: {
  readonly tenantId?: string | null | undefined;
  readonly operationKey?: string | null | undefined;
  readonly stepOf?: string | undefined;
  readonly step?: string | undefined;
  readonly queue: string;
  readonly jobId: string;
}): Binding {
  const { tenantId, operationKey, stepOf, step, queue, jobId } = letter;
  return tenantId && operationKey
    ? payloadBinding(assertName({ tenantId, operationKey: stepOf ?? operationKey, step }))
    : {
        tenantId: null,
        operationKey: `${queue}:${storableJobId(jobId)}`,
        kind: 'payload',
      };
}

/** An encrypted value as it is stored: JSON that names its key. */
export interface EncryptedValue {
  /** The version of this format. */
  readonly $encrypted: 1;
  /** The key's id. */
  readonly key: string;
  /** 96 bits, in base64url. */
  readonly iv: string;
  /** The ciphertext followed by the tag of 128 bits, in base64url. */
  readonly data: string;
}

/**
 * Whether a value calls itself encrypted. Only the name counts: a damaged value must be refused as unreadable, and not be
 * taken for a plain one.
 */
export function isEncrypted(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && Object.hasOwn(value, '$encrypted');
}

/** The problem of a plain value that {@link isEncrypted} takes for encrypted. */
export function looksEncrypted(what: string): string {
  return `${what} has a property "$encrypted", by which the ledger tells what it has encrypted. Name it otherwise.`;
}

/** Short and plain enough for messages. No 32 bytes in base64 or hexadecimal are that short, so an id cannot be a key. */
export const KEY_ID = /^[A-Za-z0-9._-]{1,32}$/;

/** The key id that a value names. Undefined when it names none that could be one. */
export function keyIdOf(value: Record<string, unknown>): string | undefined {
  const { key } = value;
  return typeof key === 'string' && KEY_ID.test(key) ? key : undefined;
}

/**
 * Encrypts payloads and results for the ledger and the queues, and decrypts them: AES-256-GCM with tenant, operation key,
 * kind and key id as additional authenticated data, so that an encrypted value opens only where it was put. Without keys,
 * values pass unchanged, but an encrypted value is never taken for a plain one.
 *
 * A reader of the stores learns no value, and no value can be changed unnoticed. What this does not detect: an old value
 * of the same operation in place of the latest one, and a plain value, which may have been written before encryption was
 * on.
 */
@Injectable()
export class Encryption {
  readonly #ring: KeyRing | undefined;

  /** @param options without keys, nothing is encrypted */
  constructor(@Inject(RESOLVED_OPTIONS) { encryption }: { readonly encryption?: KeyRing | undefined }) {
    this.#ring = encryption;
  }

  /** Whether what is written is encrypted. */
  get isOn(): boolean {
    return this.#ring !== undefined;
  }

  /** JSON text, encrypted with the current key, as JSON text again. */
  encrypt(text: string, binding: Binding): string {
    if (this.#ring === undefined) return text;
    const { keys, current } = this.#ring;
    const iv = randomBytes(IV_BYTES);
    const cipher = createCipheriv(ALGORITHM, keys.get(current) as KeyObject, iv, {
      authTagLength: TAG_BYTES,
    });
    cipher.setAAD(boundTo(binding, current));
    const data = Buffer.concat([cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    const encrypted: EncryptedValue = {
      $encrypted: 1,
      key: current,
      iv: iv.toString('base64url'),
      data: data.toString('base64url'),
    };
    return JSON.stringify(encrypted);
  }

  /** The decrypted value; a value that is not encrypted is returned as it is. @throws RecordUnreadableError */
  open(value: unknown, binding: Binding): unknown {
    if (!isEncrypted(value)) return value;
    const keyId = keyIdOf(value);
    if (this.#ring === undefined) throw new RecordUnreadableError(binding, keyId, 'no_keys');
    const key = keyId === undefined ? undefined : this.#ring.keys.get(keyId);
    if (keyId === undefined || key === undefined)
      throw new RecordUnreadableError(binding, keyId, keyId === undefined ? 'damaged' : 'unknown_key');
    const text = decrypt(value, key, boundTo(binding, keyId));
    if (text === undefined) throw new RecordUnreadableError(binding, keyId, 'damaged');
    return JSON.parse(text);
  }

  /** As {@link open}, for JSON text. Without a text, undefined. */
  openText(text: string | null | undefined, binding: Binding): unknown {
    return text === null || text === undefined ? undefined : this.open(JSON.parse(text), binding);
  }
}

const ALGORITHM = 'aes-256-gcm';
/** The size that GCM is made for; random ones of this size are safe for 2^32 values per key. */
const IV_BYTES = 12;
const TAG_BYTES = 16;

/** The parts are encoded as a JSON array, so no two bindings have the same text. */
function boundTo({ tenantId, operationKey, kind }: Binding, keyId: string): Buffer {
  return Buffer.from(JSON.stringify(['nestjs-idempotent-jobs', 1, keyId, tenantId, operationKey, kind]));
}

/** Undefined when the value does not authenticate or is malformed. */
function decrypt(encrypted: Record<string, unknown>, key: KeyObject, aad: Buffer): string | undefined {
  const iv = bytesOf(encrypted['iv']);
  const data = bytesOf(encrypted['data']);
  if (
    encrypted['$encrypted'] !== 1 ||
    iv?.length !== IV_BYTES ||
    data === undefined ||
    data.length < TAG_BYTES
  )
    return undefined;
  const decipher = createDecipheriv(ALGORITHM, key, iv, { authTagLength: TAG_BYTES });
  decipher.setAAD(aad);
  decipher.setAuthTag(data.subarray(-TAG_BYTES));
  try {
    return Buffer.concat([decipher.update(data.subarray(0, -TAG_BYTES)), decipher.final()]).toString('utf8');
  } catch {
    return undefined;
  }
}

/** Node skips characters that are not base64url. A text that does not encode back to itself was changed. */
function bytesOf(text: unknown): Buffer | undefined {
  if (typeof text !== 'string') return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}
