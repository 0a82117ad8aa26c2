import type { LedgerEntry } from 'simulator';
import { describe, expect, it } from 'vitest';
import type { PlacedOrder } from '../stream/order-stream.js';
import { judge } from './judge.js';

const order: PlacedOrder = {
  tenantId: 'acme',
  id: 'order-1',
  sku: 'cup',
  quantity: 1,
  customerEmail: 'ada@acme.test',
  amountCents: 499,
  currency: 'EUR',
};

const charge = entry({ service: 'charge', tenant: 'acme', subject: 'order-1' });
const mail = receiptFrom('acme');

describe('judge', () => {
  it('finds nothing to complain about when each effect happened once', () => {
    expect(judge([order], [charge, mail], [], 1.26)).toEqual({
      operations: 2,
      charges: 1,
      duplicateCharges: 0,
      duplicateMails: 0,
      wrongTenantMails: 0,
      lost: 0,
      inDoubt: 0,
      deadLetters: 0,
      seconds: 1.3,
    });
  });

  it('counts repeated effects as duplicates, and arrivals without an effect not at all', () => {
    const refused = { ...charge, effect: false };
    expect(judge([order], [refused, charge, charge, mail, mail, mail], [], 1)).toMatchObject({
      charges: 2,
      duplicateCharges: 1,
      duplicateMails: 2,
    });
  });

  it('counts a mail in the name of another shop as sent to the wrong tenant, and as sent', () => {
    expect(judge([order], [charge, receiptFrom('globex')], [], 1)).toMatchObject({
      wrongTenantMails: 1,
      lost: 0,
    });
  });

  it('counts an operation as lost when it had no effect and nobody knows of it', () => {
    expect(judge([order], [], [], 1).lost).toBe(2);
    expect(judge([order], [charge], [], 1).lost).toBe(1);
  });

  it('counts no operation as lost that is in doubt or dead, or that waits for one that is', () => {
    const dead = { step: 'charge', orderId: 'order-1', state: 'dead' } as const;
    const doubted = { step: 'receipt', orderId: 'order-1', state: 'in_doubt' } as const;

    expect(judge([order], [], [dead], 1)).toMatchObject({ lost: 0, deadLetters: 1, inDoubt: 0 });
    expect(judge([order], [charge], [doubted], 1)).toMatchObject({ lost: 0, deadLetters: 0, inDoubt: 1 });
    expect(judge([order], [], [doubted], 1).lost).toBe(1);
  });
});

function receiptFrom(tenant: string): LedgerEntry {
  const subject = 'Your receipt for order order-1';
  return entry({
    service: 'mail',
    tenant,
    subject: `ada@acme.test ${subject}`,
    mail: {
      to: 'ada@acme.test',
      recipientTenant: 'acme',
      from: `receipts@${tenant}.test`,
      subject,
      messageId: null,
      body: '',
    },
  });
}

function entry(facts: Pick<LedgerEntry, 'service' | 'tenant' | 'subject' | 'mail'>): LedgerEntry {
  return {
    number: 1,
    run: 'default',
    effect: true,
    outcome: 'done',
    fault: null,
    claimedTenant: facts.tenant,
    key: null,
    ordinal: 1,
    payloadHash: '',
    attempt: null,
    fencingToken: null,
    worker: null,
    at: '2026-01-01T00:00:00.000Z',
    ...facts,
  };
}
