/** A value as it is kept when it is encrypted: JSON that says with which key. */
export interface EncryptedValue {
  /** The form's version. */
  readonly $encrypted: 1;
  /** The key's id. */
  readonly key: string;
  /** 96 bits, in base64url. */
  readonly iv: string;
  /** Ciphertext, and behind it the tag of 128 bits, in base64url. */
  readonly data: string;
}

/**
 * Whether a value calls itself encrypted. By its name alone: what was damaged must be refused as unreadable, and not be
 * taken for a plain value.
 */
export function isEncrypted(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && Object.hasOwn(value, '$encrypted');
}

/** What is wrong with a result that {@link isEncrypted} takes for encrypted. */
export const RESULT_LOOKS_ENCRYPTED =
  'The result has a property "$encrypted", by which the ledger tells what it has encrypted. Name it otherwise.';

/** Short enough, and plain enough, to stand in messages. No 32 bytes in base64 or hexadecimal are that short. */
export const KEY_ID = /^[A-Za-z0-9._-]{1,32}$/;

/** The id of the key that a value says it was encrypted with; undefined: it says nothing that could be one. */
export function keyIdOf(value: Record<string, unknown>): string | undefined {
  const { key } = value;
  return typeof key === 'string' && KEY_ID.test(key) ? key : undefined;
}
