import type { FaultCounts, LedgerEntry } from 'simulator';

/** How many of the calls to the outside world really suffered a fault. */
export interface FaultShare {
  readonly calls: number;
  readonly faults: number;
}

export function faultShare(entries: readonly LedgerEntry[], counts: FaultCounts): FaultShare {
  const faults = [...Object.values(counts.charge), ...Object.values(counts.mail)];
  return { calls: entries.length, faults: faults.reduce((sum, count) => sum + count, 0) };
}

/** `31 % of 912 calls` */
export function describeShare({ calls, faults }: FaultShare): string {
  return `${calls === 0 ? 0 : Math.round((100 * faults) / calls)} % of ${calls} calls`;
}
