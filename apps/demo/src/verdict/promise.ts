import type { Promised } from '../variants/variant.js';
import type { Verdict } from './judge.js';

/** What a variant has come to. */
export interface Judged {
  readonly verdict: Verdict;
  /** Why it did not come to rest; undefined: it did. */
  readonly unrest: string | undefined;
}

/** Whether a variant has kept what it had promised. */
export function keepsPromise(promised: Promised, { verdict, unrest }: Judged): boolean {
  const { duplicateCharges, duplicateMails, wrongTenantMails, lost, inDoubt } = verdict;
  const isOnce = unrest === undefined && duplicateCharges + duplicateMails + wrongTenantMails + lost === 0;
  switch (promised) {
    case 'nothing':
      return true;
    case 'once':
      return isOnce;
    case 'known':
      return isOnce && inDoubt === 0;
    default:
      return promised satisfies never;
  }
}

/** One sentence or two about a variant that has promised something. */
export function describePromise(title: string, promised: Promised, judged: Judged): string {
  if (!keepsPromise(promised, judged)) return `${title} has BROKEN its promise: see its row above.`;
  const { inDoubt, deadLetters } = judged.verdict;
  const doubt =
    promised === 'known'
      ? 'Nothing in doubt: the gateway honours no keys, but it and the mailbox were asked what had happened.'
      : `In doubt: ${inDoubt} receipts that the mail server took without saying so, or whose worker died: a person decides, the library never guesses.`;
  return `${title}: nothing twice, nothing in a foreign name, nothing lost. ${doubt} Dead letters: ${deadLetters}.`;
}
