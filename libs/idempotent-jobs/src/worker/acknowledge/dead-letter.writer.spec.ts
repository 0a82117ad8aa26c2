import { describe, expect, it } from 'vitest';
import type { ReceivedJob } from '../intake/delivery.js';
import type { Identified } from '../identify/identify.js';
import type { Due } from '../../producer/due.js';
import { type JobEvent, JobEvents } from '../../events/job-events.js';
import type { Encryption } from '../../ledger/encryption/encryption.js';
import { DeadLetterWriter } from './dead-letter.writer.js';
import type { LetterStore } from '../../dead-letters/letter.store.js';

const received = {
  job: { queueName: 'charges', name: 'charge', id: 'op-1' },
  runId: 'w',
} as unknown as ReceivedJob;
const identified = {
  kind: 'identified',
  tenantId: 'acme',
  operationKey: 'charge:order-17',
  canonical: '["acme","charge:order-17",{}]',
  fingerprint: 'f',
} as unknown as Identified;

function deadLetterWriter(isNew: boolean) {
  const events = new JobEvents();
  const told: JobEvent[] = [];
  let woken = 0;
  events.subscribe((event) => told.push(event));
  const letters = { bury: async () => isNew } as unknown as LetterStore;
  const encryption = { encrypt: (text: string) => text } as unknown as Encryption;
  return {
    deadLetterWriter: new DeadLetterWriter(letters, events, encryption, {
      wake: () => (woken += 1) > 0,
    } as Due),
    told,
    woken: () => woken,
  };
}

describe('DeadLetterWriter', () => {
  it('tell of a delivery that gets its letter', async () => {
    const { deadLetterWriter: graves, told, woken } = deadLetterWriter(true);
    expect(await graves.ofConflict(received, identified)).toMatchObject({ kind: 'fail' });
    expect(told).toMatchObject([
      { kind: 'dead', attempt: 0, reason: 'idempotency_conflict', operationKey: 'charge:order-17' },
    ]);
    expect(woken()).toBe(1);
  });

  it('tell of no second letter of a delivery that has one, which fails all the same', async () => {
    const { deadLetterWriter: graves, told, woken } = deadLetterWriter(false);
    expect(await graves.ofConflict(received, identified)).toMatchObject({ kind: 'fail' });
    expect(told).toMatchObject([
      { kind: 'refused', reason: 'dead_lettered', jobId: 'op-1', operationKey: 'charge:order-17' },
    ]);
    expect(woken()).toBe(0);
  });
});
