import { isEncrypted, keyIdOf } from '../../ledger/encryption/encrypted-value.js';
import { Encryption } from '../../ledger/encryption/encryption.js';

/** The command line has no keys: it shows an encrypted value as encrypted, also inside of another value. */
export class KeylessEncryption extends Encryption {
  constructor() {
    super(undefined);
  }

  override open(value: unknown): unknown {
    return value === undefined
      ? undefined
      : JSON.parse(JSON.stringify(value), (_name, part: unknown) =>
          isEncrypted(part) ? `(encrypted with key ${keyIdOf(part) ?? 'unknown'})` : part,
        );
  }
}
