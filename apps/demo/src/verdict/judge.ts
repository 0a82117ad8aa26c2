/**
 * What each column of the table counts. Effects are counted in the simulator's ledger alone: what the outside world has
 * seen, whatever the variant believes.
 *
 * - operations: what the customers asked for: a charge and a receipt for each order, however often it was placed.
 * - charges: charges made on customers' cards.
 * - duplicateCharges: those among them that followed another charge of the same order.
 * - duplicateMails: mails delivered after another one with the receipt of the same order to the same customer.
 * - wrongTenantMails: mails delivered whose sender or tenant header is not the recipient's own shop.
 * - lost: operations without any effect that nobody will ever look after: no charge or mail in the ledger, and neither
 *   the operation nor one of the order's earlier steps is in doubt or a dead letter, which would account for it.
 * - inDoubt: operations whose own system says that it does not know whether they happened. Plain BullMQ never says so.
 * - deadLetters: operations that their own system has given up on, with evidence: open dead letters of (c) and (d), apart
 *   from those that ask about a doubt; jobs that BullMQ failed for good in (a) and (b).
 * - seconds: from the first order until nothing was waiting, running, to be retried or to be asked about.
 */
import type { LedgerEntry } from 'simulator';
import type { PlacedOrder } from '../stream/order-stream.js';
import type { Step, Unsettled } from '../variants/variant.js';

export interface Verdict {
  readonly operations: number;
  readonly charges: number;
  readonly duplicateCharges: number;
  readonly duplicateMails: number;
  readonly wrongTenantMails: number;
  readonly lost: number;
  readonly inDoubt: number;
  readonly deadLetters: number;
  readonly seconds: number;
}

/** The steps that touch the outside world, and those that have to be done first. */
const EARLIER: Readonly<Record<'charge' | 'receipt', readonly Step[]>> = {
  charge: ['reserve'],
  receipt: ['reserve', 'charge'],
};

export function judge(
  orders: readonly PlacedOrder[],
  entries: readonly LedgerEntry[],
  unsettled: readonly Unsettled[],
  seconds: number,
): Verdict {
  const effects = entries.filter(({ effect }) => effect);
  const charges = effects.filter(({ service }) => service === 'charge');
  const mails = effects.filter(({ service }) => service === 'mail');
  const charged = new Set(charges.map(chargeName));
  const mailed = new Set(mails.map(mailName));
  const known = new Set(unsettled.map(({ step, orderId }) => `${step}:${orderId}`));
  const isLost = (step: 'charge' | 'receipt', id: string, isDone: boolean): boolean =>
    !isDone && ![...EARLIER[step], step].some((one) => known.has(`${one}:${id}`));
  return {
    operations: orders.length * 2,
    charges: charges.length,
    duplicateCharges: charges.length - charged.size,
    duplicateMails: mails.length - mailed.size,
    wrongTenantMails: mails.filter(isForeign).length,
    lost: orders.reduce(
      (lost, { tenantId, id, customerEmail }) =>
        lost +
        Number(isLost('charge', id, charged.has(`${tenantId} ${id}`))) +
        Number(isLost('receipt', id, mailed.has(`${customerEmail} Your receipt for order ${id}`))),
      0,
    ),
    inDoubt: unsettled.filter(({ state }) => state === 'in_doubt').length,
    deadLetters: unsettled.filter(({ state }) => state === 'dead').length,
    seconds: Math.round(seconds * 10) / 10,
  };
}

/** Tenant and order. */
function chargeName({ tenant, subject }: LedgerEntry): string {
  return `${tenant} ${subject}`;
}

/** Recipient and subject line, which names the order. */
function mailName({ subject }: LedgerEntry): string {
  return subject;
}

function isForeign({ tenant, mail }: LedgerEntry): boolean {
  if (mail === undefined) return false;
  return tenant !== mail.recipientTenant || !mail.from.endsWith(`@${mail.recipientTenant}.test`);
}
