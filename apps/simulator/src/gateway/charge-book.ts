/**
 * The gateway's memory of keys and charges: by run and tenant, so that the same key of two tenants is two keys. It is
 * derived from the ledger, except for the keys in progress, which a restart forgets as a real gateway's lock would.
 */
import type { Charge, LedgerEntry } from '../ledger/ledger-entry.js';

/** Whose key or charge it is. */
export interface Scope {
  readonly run: string;
  readonly tenant: string;
}

/** What a key is good for at this moment. */
export type KeyClaim =
  | { readonly kind: 'mine' }
  | { readonly kind: 'replay'; readonly charge: Charge }
  | { readonly kind: 'in_progress' }
  | { readonly kind: 'conflict' };

interface MadeCharge {
  readonly charge: Charge;
  readonly payloadHash: string;
}

export class ChargeBook {
  private readonly byKey = new Map<string, MadeCharge>();
  private readonly byId = new Map<string, Charge>();
  private readonly inProgress = new Map<string, string>();

  /** Takes the key for a charge that is to be made; whoever gets `mine` has to {@link release} it. */
  claim(scope: Scope, key: string, payloadHash: string): KeyClaim {
    const name = nameOf(scope, key);
    const made = this.byKey.get(name);
    const knownHash = made?.payloadHash ?? this.inProgress.get(name);
    if (knownHash !== undefined && knownHash !== payloadHash) return { kind: 'conflict' };
    if (this.inProgress.has(name)) return { kind: 'in_progress' };
    if (made) return { kind: 'replay', charge: made.charge };
    this.inProgress.set(name, payloadHash);
    return { kind: 'mine' };
  }

  release(scope: Scope, key: string): void {
    this.inProgress.delete(nameOf(scope, key));
  }

  /** Remembers the charge of an entry that had an effect. A key that is not honoured means its last charge. */
  remember({ run, tenant, key, payloadHash, charge, effect }: Omit<LedgerEntry, 'number' | 'at'>): void {
    if (!effect || !charge) return;
    this.byId.set(nameOf({ run, tenant }, charge.chargeId), charge);
    if (key !== null) this.byKey.set(nameOf({ run, tenant }, key), { charge, payloadHash });
  }

  findByKey(scope: Scope, key: string): Charge | undefined {
    return this.byKey.get(nameOf(scope, key))?.charge;
  }

  findById(scope: Scope, chargeId: string): Charge | undefined {
    return this.byId.get(nameOf(scope, chargeId));
  }

  reset(run: string): void {
    const prefix = nameOf({ run, tenant: '' }, '').slice(0, JSON.stringify(run).length + 2);
    for (const index of [this.byKey, this.byId, this.inProgress]) {
      for (const name of index.keys()) if (name.startsWith(prefix)) index.delete(name);
    }
  }
}

/** Starts with `["run",`, which tells runs apart whatever they are called. */
function nameOf({ run, tenant }: Scope, name: string): string {
  return JSON.stringify([run, tenant, name]);
}
