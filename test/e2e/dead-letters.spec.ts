import { Processor, WorkerHost } from '@nestjs/bullmq';
import type { INestApplicationContext } from '@nestjs/common';
import { FlowProducer, type Job, type JobsOptions, UnrecoverableError } from 'bullmq';
import { IsInt, IsPositive, ValidateNested } from 'class-validator';
import { Type } from 'class-transformer';
import { PermanentError, TransientError } from 'nestjs-idempotent-jobs';
import type { DeadLetterMessage } from 'nestjs-idempotent-jobs/dead-letters';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  attemptKindsOf,
  bullQueue,
  dataSourceOf,
  enqueue,
  type LetterRow,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { identifyPlain, processorOf, Scripts } from '../support/processors.js';
import type { Place } from '../support/place.js';
import { BACKENDS } from '../support/scenario.js';
import { failStalled, takerOf } from '../support/stalled.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };
const PATIENT = { attempts: 2, backoff: { baseMs: 60_000 } };

class Amount {
  @IsInt()
  @IsPositive()
  cents!: number;
}

class Charge {
  @ValidateNested()
  @Type(() => Amount)
  amount!: Amount;
}

describe.each(BACKENDS)('dead letters, on %s', (backend) => {
  const apps = useApps();
  const scripts = new Scripts();
  const messages: DeadLetterMessage[] = [];
  @Processor('charges-dlq')
  class LetterProcessor extends WorkerHost {
    process(job: Job<DeadLetterMessage>): Promise<void> {
      messages.push(job.data);
      return Promise.resolve();
    }
  }
  /** How often a queue's handler was called which none of its jobs should reach. */
  const strays = { nameless: 0, legacy: 0 };
  const app = useOneApp(backend, {
    queues: ['charges', 'typed', 'typed-by-name', 'patient', 'nameless', 'legacy'],
    providers: [
      processorOf('charges', { effect: 'keyed', retry: QUICK, identify: identifyPlain }, scripts.handler),
      processorOf('typed', { effect: 'keyed', payload: Charge }, scripts.handler),
      processorOf('typed-by-name', { effect: 'keyed', payload: { charge: Charge } }, scripts.handler),
      processorOf('patient', { effect: 'keyed', retry: PATIENT }, scripts.handler),
      processorOf('nameless', {}, () => (strays.nameless += 1)),
      processorOf('legacy', { identify: identifyPlain }, () => (strays.legacy += 1)),
      LetterProcessor,
    ],
  });

  /** The letters of a job that belongs to nobody. */
  const lettersOfJob = (queue: string, { id }: Job): Promise<LetterRow[]> =>
    dataSourceOf(app()).query('SELECT * FROM dead_letters WHERE queue = $1 AND job_id = $2', [queue, id]);

  /** An application that finds what BullMQ has failed. */
  function sweeping(place: Place): Promise<INestApplicationContext> {
    const processor = processorOf('charges', { effect: 'keyed', identify: identifyPlain }, () => 'never');
    const jobs = { recovery: { sweepMs: 100 } };
    return apps.beside(place, { queues: ['charges'], providers: [processor], jobs });
  }

  it('retries exhausted: one letter with evidence, and one message on the dead-letter queue', async () => {
    const tenantId = scripts.tenantWith(() => {
      throw new TransientError('the bank is closed', { cause: new Error('a socket hung up') });
    });
    await enqueue(app(), 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId);

    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({
      status: 'dead',
      attempts: 3,
      failures: 3,
      error: { message: 'the bank is closed' },
    });
    const theirs = (): DeadLetterMessage[] => messages.filter((message) => message.tenantId === tenantId);
    await eventually(theirs, (received) => expect(received).toHaveLength(1));
    const [letter] = await eventually(
      () => lettersOf(app(), tenantId),
      (letters) => expect(letters).toMatchObject([{ dispatch_due_at: null }]),
    );
    expect(letter).toMatchObject({
      reason: 'retries_exhausted',
      tenant_id: tenantId,
      operation_key: 'charge:1',
      job_name: 'charge',
      attempts: 3,
      payload: { amount: 5 },
      error: {
        name: 'TransientError',
        message: 'the bank is closed',
        cause: { message: 'a socket hung up' },
      },
    });
    expect(letter?.error?.stack).toContain('dead-letters.spec');
    expect(theirs()).toMatchObject([
      {
        letterId: letter?.id,
        reason: 'retries_exhausted',
        tenantId,
        operationKey: 'charge:1',
        queue: 'charges',
        payload: { amount: 5 },
      },
    ]);
    const kinds = await attemptKindsOf(app(), 'charge:1', tenantId);
    expect(kinds).toEqual(['transient', 'transient', 'transient']);
  });

  it('a permanent error is not retried', async () => {
    let calls = 0;
    const tenantId = scripts.tenantWith(() => {
      calls += 1;
      throw new PermanentError('no such account');
    });
    await enqueue(app(), 'charges', 'charge', {}, 'charge:1', tenantId);
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app(), tenantId)).toMatchObject([{ reason: 'permanent_error' }]);
    expect(calls).toBe(1);
  });

  it('an invalid payload is buried with every problem named, and the handler is not called', async () => {
    let calls = 0;
    const tenantId = scripts.tenantWith(() => (calls += 1));
    await enqueue(app(), 'typed', 'charge', { amount: { cents: -4242 } }, 'charge:1', tenantId);
    expect(await settled(app(), 'charge:1', tenantId)).toMatchObject({ status: 'dead' });
    const [letter] = await lettersOf(app(), tenantId);
    expect(letter).toMatchObject({ reason: 'payload_invalid', payload: { amount: { cents: -4242 } } });
    expect(letter?.error?.message).toContain('amount.cents: cents must be a positive number');
    expect(letter?.error?.message).not.toContain('4242');
    expect(calls).toBe(0);
  });

  it('a valid payload reaches the handler as an instance of its DTO', async () => {
    let received: unknown;
    const tenantId = scripts.tenantWith((job) => {
      received = job.data;
    });
    await enqueue(app(), 'typed-by-name', 'charge', { amount: { cents: 5 } }, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    expect(received).toBeInstanceOf(Charge);
    expect((received as Charge).amount).toBeInstanceOf(Amount);
  });

  it('a job that nobody can identify is buried without a tenant, once, and the handler is not called', async () => {
    const job = await bullQueue(app(), 'nameless').add('charge', { amount: 1 });
    await eventually(
      () => lettersOfJob('nameless', job),
      (letters) =>
        expect(letters).toMatchObject([
          { reason: 'identity_missing', tenant_id: null, operation_key: null, payload: { amount: 1 } },
        ]),
    );
    await eventually(
      () => bullQueue(app(), 'nameless').getJobState(job.id as string),
      (state) => expect(state).toBe('failed'),
    );
    expect(strays.nameless).toBe(0);
  });

  it.each([
    ['without a tenant', { key: 'charge:1' }],
    ['with an empty tenant', { key: 'charge:1', tenant: '' }],
    ['with an over-long tenant', { key: 'charge:1', tenant: 'a'.repeat(300) }],
    ['with a tenant that is no string', { key: 'charge:1', tenant: { id: 'acme' } }],
  ])('a legacy job %s is buried, and the handler is not called', async (_title, data) => {
    const job = await bullQueue(app(), 'legacy').add('charge', data);
    await eventually(
      () => lettersOfJob('legacy', job),
      (letters) => expect(letters).toMatchObject([{ reason: 'identity_missing', tenant_id: null }]),
    );
    expect(strays.legacy).toBe(0);
  });

  it('a job whose tenant was changed on the way is buried as a mismatch, and runs for nobody', async () => {
    let calls = 0;
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processorOf('charges', {}, () => (calls += 1))],
      jobs: { dispatch: { enabled: false } },
    });
    const operation = (await enqueue(app, 'charges', 'charge', {}, 'charge:1')) as { jobId: string };
    const data = {
      operation: { tenantId: 'globex', operationKey: 'charge:1', fingerprint: 'x' },
      payload: {},
    };
    await bullQueue(app, 'charges').add('charge', data, { jobId: operation.jobId });
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ reason: 'tenant_mismatch', tenant_id: null }]),
    );
    expect(calls).toBe(0);
    expect(await outcomeOf(app, 'charge:1', 'globex')).toBeUndefined();
  });

  it('a job that BullMQ failed by itself while nobody listened is found by the sweep; failures of other times are left alone, whatever their words', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    const queue = bullQueue(app, 'charges');
    await queue.add('charge', { tenant: 'acme', key: 'charge:stalled' });
    await failStalled(place, queue);
    const worker = takerOf(place, 'charges');
    const words = [
      'the old processor had a bug',
      'job stalled more than allowable limit',
      'job started more than allowable limit',
      'child bull:charges:1 failed',
    ];
    for (const [n, said] of words.entries()) {
      await queue.add('charge', { tenant: 'acme', key: `charge:old:${n}` });
      await (await worker.next()).moveToFailed(new UnrecoverableError(said), 'token', false);
    }
    await worker.close();

    const heir = await sweeping(place);
    expect(await settled(heir, 'charge:stalled')).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(heir)).toMatchObject([{ reason: 'crash_loop', operation_key: 'charge:stalled' }]);
    for (const n of words.keys()) expect(await outcomeOf(heir, `charge:old:${n}`)).toBeUndefined();
  });

  it('a parent that BullMQ failed for its child while nobody listened is found by the sweep', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    const flows = new FlowProducer({ connection: place.connection, prefix: place.prefix });
    const node = (key: string, opts: JobsOptions = {}) => ({
      name: 'charge',
      queueName: 'charges',
      prefix: place.prefix,
      data: { tenant: 'acme', key },
      opts,
    });
    await flows.add({ ...node('parent'), children: [node('child', { failParentOnFailure: true })] });
    await flows.close();
    const worker = takerOf(place, 'charges');
    await (await worker.next()).moveToFailed(new UnrecoverableError('no'), 'token', false);
    const parent = await worker.next();
    await parent.moveToFailed(new UnrecoverableError(parent.deferredFailure), 'token', false);
    await worker.close();

    const heir = await sweeping(place);
    expect(await settled(heir, 'parent')).toMatchObject({ status: 'dead' });
    expect(await lettersOf(heir)).toMatchObject([{ reason: 'permanent_error', operation_key: 'parent' }]);
    expect(await outcomeOf(app, 'child')).toBeUndefined();
  });

  it('every operation that dies has its letter, also when BullMQ job ids are used again', async () => {
    const tenantId = scripts.tenantWith(() => {
      throw new PermanentError('no');
    });
    for (const key of ['charge:1', 'charge:2']) {
      const job = await bullQueue(app(), 'charges').add(
        'charge',
        { tenant: tenantId, key },
        { jobId: 'order-17', removeOnFail: true },
      );
      await settled(app(), key, tenantId);
      await eventually(
        () => bullQueue(app(), 'charges').getJob(job.id as string),
        (left) => expect(left).toBeUndefined(),
      );
    }
    const letters = await lettersOf(app(), tenantId);
    expect(letters.map((letter) => letter.operation_key)).toEqual(['charge:1', 'charge:2']);
  });

  it('a handler that changes its payload does not change the evidence', async () => {
    const tenantId = scripts.tenantWith((job) => {
      (job.data as { amount: number }).amount = 0;
      throw new PermanentError('no');
    });
    await enqueue(app(), 'charges', 'charge', { amount: 5 }, 'charge:1', tenantId);
    await settled(app(), 'charge:1', tenantId);
    expect(await lettersOf(app(), tenantId)).toMatchObject([{ payload: { amount: 5 } }]);
  });

  it('an attempt that fails is visible in BullMQ while the next one is waited for', async () => {
    const tenantId = scripts.tenantWith(() => {
      throw new TransientError('the bank is closed');
    });
    const { jobId } = (await enqueue(app(), 'patient', 'charge', {}, 'charge:1', tenantId)) as {
      jobId: string;
    };
    const job = await eventually(
      () => bullQueue(app(), 'patient').getJob(jobId),
      (found) => expect(found?.failedReason).toBe('the bank is closed'),
    );
    expect(job?.stacktrace?.[0]).toContain('dead-letters.spec');
    const outcome = await outcomeOf(app(), 'charge:1', tenantId);
    expect(outcome).toMatchObject({ status: 'retrying', attempts: 1, failures: 1 });
  });
});
