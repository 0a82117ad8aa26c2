import { describe, expect, it } from 'vitest';
import type { ReceivedJob } from '../intake/delivery.js';
import type { Identified } from '../identify/identify.js';
import type { Due } from '../../producer/due.js';
import { type JobEvent, JobEvents } from '../../events/job-events.js';
import type { Sealer } from '../../ledger/encryption/sealer.js';
import { Burials } from './burials.js';
import type { LetterStore } from '../../dead-letters/letter.store.js';

const received = {
  job: { queueName: 'charges', name: 'charge', id: 'op-1' },
  workerId: 'w',
} as unknown as ReceivedJob;
const identified = {
  kind: 'identified',
  tenantId: 'acme',
  operationKey: 'charge:order-17',
  canonical: '["acme","charge:order-17",{}]',
  fingerprint: 'f',
} as unknown as Identified;

function burials(isNew: boolean) {
  const events = new JobEvents();
  const told: JobEvent[] = [];
  let woken = 0;
  events.subscribe((event) => told.push(event));
  const letters = { bury: async () => isNew } as unknown as LetterStore;
  const sealer = { seal: (text: string) => text } as unknown as Sealer;
  return {
    burials: new Burials(letters, events, sealer, { wake: () => (woken += 1) > 0 } as Due),
    told,
    woken: () => woken,
  };
}

describe('Burials', () => {
  it('tell of a delivery that gets its letter', async () => {
    const { burials: graves, told, woken } = burials(true);
    expect(await graves.ofConflict(received, identified)).toMatchObject({ kind: 'fail' });
    expect(told).toMatchObject([
      { kind: 'dead', attempt: 0, reason: 'idempotency_conflict', operationKey: 'charge:order-17' },
    ]);
    expect(woken()).toBe(1);
  });

  it('tell of no second letter of a delivery that has one, which fails all the same', async () => {
    const { burials: graves, told, woken } = burials(false);
    expect(await graves.ofConflict(received, identified)).toMatchObject({ kind: 'fail' });
    expect(told).toMatchObject([
      { kind: 'refused', because: 'buried', jobId: 'op-1', operationKey: 'charge:order-17' },
    ]);
    expect(woken()).toBe(0);
  });
});
