import type { FaultKind, Service } from '../faults/fault-kinds.js';

/** How an arrival ended. Only `done` had an effect in the world. */
export type ArrivalOutcome =
  | 'done'
  /** Answered with the charge that an earlier arrival with this key had made. */
  | 'replayed'
  /** Turned away before anything was done, as if the service were down, or too busy. */
  | 'refused'
  | 'throttled'
  /** The key belongs to an arrival that is not answered yet. */
  | 'in_progress'
  /** The key belongs to an arrival with another body. */
  | 'conflict'
  | 'invalid';

/** One charge on a customer's card. */
export interface Charge {
  readonly chargeId: string;
  readonly orderId: string;
  readonly amountCents: number;
  readonly currency: string;
}

/** One mail in a customer's mailbox. */
export interface Mail {
  readonly to: string;
  /** Whose customer the recipient is: `acme` in `customer@acme.test`. A mail of another tenant is a leak. */
  readonly recipientTenant: string;
  readonly from: string;
  readonly subject: string;
  readonly messageId: string | null;
  readonly body: string;
}

/** One arrival at one of the services: a line of the ledger. */
export interface LedgerEntry {
  /** Counts all arrivals of all runs, in the order in which they were recorded. */
  readonly number: number;
  /** Several runs (tests, soaks) share a simulator without meeting: nothing of one is visible to another. */
  readonly run: string;
  readonly service: Service;
  /** Whether the world changed: false for replayed, refused and invalid arrivals. */
  readonly effect: boolean;
  readonly outcome: ArrivalOutcome;
  /** What went wrong on purpose. */
  readonly fault: FaultKind | null;
  /** Whose operation it is, by its body (charge) or its header `X-Tenant` (mail). */
  readonly tenant: string;
  /** The tenant that the header `x-tenant` names, to be compared with `tenant`. */
  readonly claimedTenant: string | null;
  /** The idempotency key (charge) or operation key (mail). */
  readonly key: string | null;
  /** What faults are counted by: the order of a charge, recipient and subject line of a mail. */
  readonly subject: string;
  /** The how-manieth arrival of its subject this is, from 1; 0 for an invalid one. */
  readonly ordinal: number;
  /** SHA-256 of what was asked for, so that two arrivals with one key can be compared. */
  readonly payloadHash: string;
  readonly attempt: number | null;
  readonly fencingToken: number | null;
  readonly worker: string | null;
  /** When it was recorded, which is when the effect happened; ISO 8601. */
  readonly at: string;
  /** The charge that was made, or replayed. */
  readonly charge?: Charge;
  /** The mail that was delivered. */
  readonly mail?: Mail;
}

/** An entry before the ledger numbers and dates it. */
export type Arrival = Omit<LedgerEntry, 'number' | 'at'>;

/** An arrival while it is being decided what becomes of it. */
export type OpenArrival = Omit<Arrival, 'outcome'>;
