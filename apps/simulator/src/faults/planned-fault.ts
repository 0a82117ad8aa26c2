import { createHash } from 'node:crypto';
import type { PlannedKind, Service } from './fault-kinds.js';
import type { FaultSettings } from './fault-settings.js';

/** Which arrival it is: the ordinal counts the arrivals of its subject, from 1. */
export interface ArrivalIdentity {
  readonly service: Service;
  readonly tenant: string;
  readonly subject: string;
  readonly ordinal: number;
}

const DEFAULT_CAP = 2;

/**
 * Whether, and how, this arrival suffers. A pure function of the seed and of the arrival, and not of a random generator's
 * state, so that a stream of operations meets the same faults in every run, however its arrivals interleave.
 */
export function plannedFault(plan: FaultSettings, arrival: ArrivalIdentity): PlannedKind | undefined {
  const { seed = 0, rate = 0, kinds = [], maxFaultsPerSubject = DEFAULT_CAP } = plan;
  if (arrival.ordinal > maxFaultsPerSubject) return undefined;
  const identity = [String(seed), arrival.service, arrival.tenant, arrival.subject, arrival.ordinal];
  const hash = createHash('sha256').update(JSON.stringify(identity)).digest();
  // Two independent draws from one hash: its first four bytes say whether, the next four which.
  if (hash.readUInt32BE(0) / 2 ** 32 >= rate) return undefined;
  return kinds[hash.readUInt32BE(4) % kinds.length];
}
