import { createSecretKey, type KeyObject } from 'node:crypto';
import type { OptionChecks } from '../../option-checks/option-checks.js';
import { KEY_ID } from './encryption.js';

/** How payloads and results are encrypted in the ledger and in the queues. */
export interface EncryptionOptions {
  /**
   * The keys by their ids: 32 bytes each, raw or as base64 text. All of them decrypt. An id has 1 to 32 letters, digits,
   * ".", "_" or "-", and always means the same bytes.
   */
  readonly keys: Readonly<Record<string, Uint8Array | string>>;
  /** The id of the key that encrypts. */
  readonly current: string;
}

/** Keys that were parsed. A `KeyObject` does not show its bytes when it is logged. */
export interface KeyRing {
  readonly keys: ReadonlyMap<string, KeyObject>;
  readonly current: string;
}

const KEY_BYTES = 32;

/** Parses the keys. Errors name a bad entry by its position and size: an invalid id may be a key in the wrong place. */
export function readKeyRing(
  checks: OptionChecks,
  options: EncryptionOptions | undefined,
  /** The name of the options in errors. */
  option: 'encryption' | 'signing' = 'encryption',
): KeyRing | undefined {
  if (options === undefined) return undefined;
  const given: unknown = options?.keys;
  const keys = new Map<string, KeyObject>();
  if (given === null || typeof given !== 'object' || Object.keys(given).length === 0) {
    checks.problem(`${option}.keys must be an object of at least one key by its id`);
    return undefined;
  }
  Object.entries(given).forEach(([id, key], index) => {
    const name = KEY_ID.test(id) ? `"${id}"` : `number ${index + 1}`;
    if (!KEY_ID.test(id))
      checks.problem(
        `${option}.keys: the id of key ${name} must have 1 to 32 letters, digits, ".", "_" or "-"`,
      );
    const bytes = bytesOf(key);
    if (bytes?.length !== KEY_BYTES)
      checks.problem(
        `${option}.keys: key ${name} ${bytes === undefined ? 'is neither bytes nor base64 text' : `has ${bytes.length} bytes`}, but must have ${KEY_BYTES} bytes (node -p "crypto.randomBytes(32).toString('base64')")`,
      );
    else keys.set(id, createSecretKey(bytes));
  });
  const { current } = options;
  if (typeof current !== 'string' || !Object.hasOwn(given, current))
    checks.problem(
      `${option}.current ${typeof current === 'string' && KEY_ID.test(current) ? `is "${current}", but ` : ''}must be the id of one of ${option}.keys`,
    );
  return { keys, current };
}

function bytesOf(key: unknown): Buffer | undefined {
  if (key instanceof Uint8Array) return Buffer.from(key);
  return typeof key === 'string' && /^[A-Za-z0-9+/_-]+={0,2}$/.test(key)
    ? Buffer.from(key, 'base64')
    : undefined;
}
