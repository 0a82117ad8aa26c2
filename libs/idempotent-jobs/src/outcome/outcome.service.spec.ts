import { describe, expect, it } from 'vitest';
import { OutcomeTimeoutError } from '../operation/errors.js';
import type { Database } from '../ledger/postgres/database.js';
import { NoConnectionError } from '../ledger/postgres/no-connection.js';
import { JobEvents } from '../events/job-events.js';
import type { Encryption } from '../ledger/encryption/encryption.js';
import { TenantContext } from '../tenancy/tenant-context.js';
import { OutcomeService } from './outcome.service.js';
import type { ActionStore } from '../dead-letters/action.store.js';
import type { Due } from '../producer/due.js';

const operation = { tenantId: 'acme', operationKey: 'charge:1' };

const row = {
  tenantId: 'acme',
  operationKey: 'charge:1',
  queue: 'charges',
  jobName: 'charge',
  jobId: '1',
  status: 'completed',
  attempts: 1,
  failures: 0,
  result: '{"charged":true}',
  createdAt: new Date('2026-01-01T00:00:00Z'),
};

/** A ledger that gives these answers one after the other, the last one for ever. */
function outcomesOf(...answers: ReadonlyArray<object[] | Error>): OutcomeService {
  const left = [...answers];
  const database = {
    read: () => {
      const [answer] = left.length > 1 ? left.splice(0, 1) : left;
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    },
  } as unknown as Database;
  const encryption = { openText: (text: string) => JSON.parse(text) as unknown } as unknown as Encryption;
  return new OutcomeService(
    database,
    new JobEvents(),
    new TenantContext(),
    encryption,
    {} as ActionStore,
    {} as Due,
  );
}

describe('Waiting for an operation', () => {
  it('goes on while Postgres cannot be asked', async () => {
    const outcomes = outcomesOf(new NoConnectionError('refused'), [], new NoConnectionError('busy'), [row]);
    expect(await outcomes.wait(operation)).toMatchObject({ status: 'completed', result: { charged: true } });
  });

  it('says what the trouble was if Postgres could not be asked to the end', async () => {
    const outcomes = outcomesOf(new NoConnectionError('refused'));
    await expect(outcomes.wait(operation, { timeoutMs: 30 })).rejects.toThrow('refused');
  });

  it('ends with the time it was given', async () => {
    await expect(outcomesOf([]).wait(operation, { timeoutMs: 30 })).rejects.toThrow(OutcomeTimeoutError);
    await expect(outcomesOf([]).wait({ ...operation, step: 'charge' }, { timeoutMs: 0 })).rejects.toThrow(
      /^Step "charge" of operation "/,
    );
  });

  it('ends at once when Postgres has refused the question', async () => {
    const refused = Object.assign(new Error('permission denied'), { code: '42501', severity: 'ERROR' });
    await expect(outcomesOf(refused).wait(operation)).rejects.toThrow('permission denied');
  });
});
