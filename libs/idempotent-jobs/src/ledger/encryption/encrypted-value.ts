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

/** The problem of a handler's result that {@link isEncrypted} takes for encrypted. */
export const RESULT_LOOKS_ENCRYPTED =
  'The result has a property "$encrypted", by which the ledger tells what it has encrypted. Name it otherwise.';

/** Short and plain enough for messages. No 32 bytes in base64 or hexadecimal are that short, so an id cannot be a key. */
export const KEY_ID = /^[A-Za-z0-9._-]{1,32}$/;

/** The key id that a value names. Undefined when it names none that could be one. */
export function keyIdOf(value: Record<string, unknown>): string | undefined {
  const { key } = value;
  return typeof key === 'string' && KEY_ID.test(key) ? key : undefined;
}
