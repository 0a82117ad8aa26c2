import { DelayedError, UnrecoverableError } from 'bullmq';
import { type IdempotentProcessorOptions, RetryLaterError, TransientError } from 'nestjs-idempotent-jobs';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { beforeAll, describe, expect, it } from 'vitest';
import { useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  attemptKindsOf,
  bullQueue,
  deliver,
  enqueue,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { Gate, type Handler, identifyPlain, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const QUICK = { attempts: 4, backoff: { baseMs: 10, capMs: 20 } };
const STEADY = { attempts: 100, backoff: { baseMs: 100, capMs: 100 } };

/** The queues, and how their processors try again. */
const QUEUES = {
  natural: { effect: 'natural', retry: QUICK },
  keyed: { effect: 'keyed', retry: QUICK, identify: identifyPlain },
  'hasty-keyed': { effect: 'keyed', retry: QUICK, timeoutMs: 150 },
  'budgeted-keyed': { effect: 'keyed', retry: STEADY, timeBudgetMs: 300 },
  unrepeatable: { effect: 'unrepeatable', retry: QUICK },
  'hasty-unrepeatable': { retry: QUICK, timeoutMs: 150 },
} satisfies Record<string, IdempotentProcessorOptions>;
type QueueName = keyof typeof QUEUES;

describe.each(BACKENDS)('retries, on %s', (backend) => {
  const scripts = new Scripts();
  const app = useOneApp(backend, {
    queues: Object.keys(QUEUES),
    providers: Object.entries(QUEUES).map(([queue, options]) => processorOf(queue, options, scripts.handler)),
  });
  const events: JobEvent[] = [];
  beforeAll(
    () =>
      void app()
        .get(JobEvents)
        .subscribe((event) => events.push(event)),
  );

  /** Enqueues a charge of a tenant whose operations are handled so, and answers with the tenant. */
  const charge = async (queue: QueueName, handler: Handler, payload = {}): Promise<string> => {
    const tenant = scripts.tenantWith(handler);
    await enqueue(app(), queue, 'charge', payload, 'charge:1', tenant);
    return tenant;
  };

  it('a transient failure is tried again, under the next attempt and the same idempotency key', async () => {
    const seen: { attempt: number; token: number; key: string }[] = [];
    const tenant = await charge('unrepeatable', (_job, operation) => {
      seen.push({ attempt: operation.attempt, token: operation.fencingToken, key: operation.idempotencyKey });
      if (operation.attempt < 3) throw new TransientError('refused');
      return 'done';
    });
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({
      status: 'completed',
      attempts: 3,
      failures: 2,
      result: 'done',
    });
    expect(seen.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    expect(new Set(seen.map(({ key }) => key)).size).toBe(1);
    expect(seen.map(({ token }) => token)).toEqual(seen.map(({ token }) => token).toSorted((a, b) => a - b));
  });

  it('a producer that set no attempts changes nothing about the policy', async () => {
    let calls = 0;
    const tenant = scripts.tenantWith(() => {
      calls += 1;
      if (calls < 3) throw new TransientError('refused');
      return 'done';
    });
    const job = await deliver(app(), 'keyed', 'charge:1', {}, tenant);
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'completed', attempts: 3 });
    const { logs } = await bullQueue(app(), 'keyed').getJobLogs(job.id as string);
    expect(logs.join('\n')).toContain('refused');
  });

  it('a handler that asks for a later time is not called before it', async () => {
    const calledAt: number[] = [];
    const tenant = await charge('keyed', () => {
      calledAt.push(Date.now());
      if (calledAt.length === 1) throw new RetryLaterError(900);
    });
    await settled(app(), 'charge:1', tenant);
    expect((calledAt[1] as number) - (calledAt[0] as number)).toBeGreaterThanOrEqual(850);
  });

  it('a keyed attempt that times out is told by its signal and tried again; what it returns later is discarded', async () => {
    const gate = new Gate();
    const aborted: unknown[] = [];
    const tenant = await charge('hasty-keyed', async (_job, operation, signal) => {
      if (operation.attempt > 1) return 'second';
      signal.addEventListener('abort', () => aborted.push(signal.reason));
      await gate.pass();
      return 'first';
    });
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({
      status: 'completed',
      result: 'second',
      attempts: 2,
      // The first attempt was in doubt; of the operation nothing is any more.
      doubtSince: undefined,
    });
    gate.open();
    expect(aborted).toHaveLength(1);
    expect(await attemptKindsOf(app(), 'charge:1', tenant)).toEqual(['in_doubt']);
    expect(await outcomeOf(app(), 'charge:1', tenant)).toMatchObject({ result: 'second' });
  });

  it('an unrepeatable attempt that times out is in doubt, with a letter, and is not tried again', async () => {
    let calls = 0;
    const tenant = await charge(
      'hasty-unrepeatable',
      async (_job, _operation, signal) => {
        calls += 1;
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      },
      { amount: 1 },
    );
    const outcome = await settled(app(), 'charge:1', tenant);
    expect(outcome).toMatchObject({ status: 'in_doubt', attempts: 1 });
    expect(outcome.doubtSince).toBeInstanceOf(Date);
    expect(await lettersOf(app(), tenant)).toMatchObject([{ reason: 'in_doubt', payload: { amount: 1 } }]);
    expect(calls).toBe(1);
  });

  it('a programming error is permanent where the effect can be repeated, and in doubt where it cannot', async () => {
    const tenant = scripts.tenantWith(() => {
      throw new TypeError('undefined is not a function');
    });
    await enqueue(app(), 'natural', 'work', {}, 'work:1', tenant);
    await enqueue(app(), 'unrepeatable', 'work', {}, 'work:2', tenant);
    expect(await settled(app(), 'work:1', tenant)).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await settled(app(), 'work:2', tenant)).toMatchObject({ status: 'in_doubt', attempts: 1 });
  });

  it('a time budget ends retrying, and the letter says so', async () => {
    const tenant = await charge('budgeted-keyed', () => {
      throw new TransientError('refused');
    });
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'dead' });
    expect(await lettersOf(app(), tenant)).toMatchObject([{ reason: 'time_budget_exceeded' }]);
  });

  it('BullMQ control errors of a handler pass through and spend no attempt', async () => {
    let calls = 0;
    const tenant = await charge('keyed', async (job) => {
      calls += 1;
      if (calls > 1) return 'done';
      await job.moveToDelayed(Date.now() + 50, job.token);
      throw new DelayedError();
    });
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({
      status: 'completed',
      attempts: 1,
      failures: 0,
    });
    expect(calls).toBe(2);
    const kinds = events.filter(({ tenantId }) => tenantId === tenant).map(({ kind }) => kind);
    expect(kinds).toContain('handed_back');
  });

  it("BullMQ's UnrecoverableError ends the operation at once, in the ledger as in BullMQ", async () => {
    const tenant = await charge('keyed', () => {
      throw new UnrecoverableError('the account is closed');
    });
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app(), tenant)).toMatchObject([{ reason: 'permanent_error' }]);
  });

  it('a result that JSON cannot express completes the operation without one', async () => {
    const tenant = await charge('keyed', () => ({ amount: 1n }));
    const outcome = await settled(app(), 'charge:1', tenant);
    expect(outcome).toMatchObject({ status: 'completed', attempts: 1 });
    expect(outcome.result).toBeUndefined();
    await eventually(
      () => bullQueue(app(), 'keyed').getCompleted(),
      (jobs) => expect(jobs.filter(({ data }) => JSON.stringify(data).includes(tenant))).toHaveLength(1),
    );
  });
});
