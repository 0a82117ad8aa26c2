import { isSealed, keyIdOf } from '../../ledger/encryption/sealed.js';
import { Sealer } from '../../ledger/encryption/sealer.js';

/** The command line has no keys: what is encrypted it shows as such, wherever in a value that is. */
export class KeylessSealer extends Sealer {
  constructor() {
    super(undefined);
  }

  override open(value: unknown): unknown {
    return value === undefined
      ? undefined
      : JSON.parse(JSON.stringify(value), (_name, part: unknown) =>
          isSealed(part) ? `(encrypted with key ${keyIdOf(part) ?? 'unknown'})` : part,
        );
  }
}
