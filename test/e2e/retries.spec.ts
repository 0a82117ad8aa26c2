import { DelayedError, UnrecoverableError } from 'bullmq';
import { RetryLaterError, TransientError } from 'nestjs-idempotent-jobs';
import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
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
import { Gate, identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const QUICK = { attempts: 4, backoff: { baseMs: 10, capMs: 20 } };

describe.each(BACKENDS)('retries, on %s', (backend) => {
  const apps = useApps();

  it('a transient failure is tried again, under the next attempt and the same idempotency key', async () => {
    const seen: { attempt: number; token: number; key: string }[] = [];
    const processor = processorOf('charges', { effect: 'unrepeatable', retry: QUICK }, (_job, operation) => {
      seen.push({ attempt: operation.attempt, token: operation.fencingToken, key: operation.idempotencyKey });
      if (operation.attempt < 3) throw new TransientError('refused');
      return 'done';
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
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
    const processor = processorOf(
      'charges',
      { effect: 'keyed', retry: QUICK, identify: identifyPlain },
      () => {
        calls += 1;
        if (calls < 3) throw new TransientError('refused');
        return 'done';
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const job = await deliver(app, 'charges', 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 3 });
    const { logs } = await bullQueue(app, 'charges').getJobLogs(job.id as string);
    expect(logs.join('\n')).toContain('refused');
  });

  it('a handler that asks for a later time is not called before it', async () => {
    const calledAt: number[] = [];
    const processor = processorOf('charges', { effect: 'keyed', retry: QUICK }, () => {
      calledAt.push(Date.now());
      if (calledAt.length === 1) throw new RetryLaterError(900);
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    expect((calledAt[1] as number) - (calledAt[0] as number)).toBeGreaterThanOrEqual(850);
  });

  it('a keyed attempt that times out is told by its signal and tried again; what it returns later is discarded', async () => {
    const gate = new Gate();
    const aborted: unknown[] = [];
    const processor = processorOf(
      'charges',
      { effect: 'keyed', timeoutMs: 150, retry: QUICK },
      async (_job, operation, signal) => {
        if (operation.attempt > 1) return 'second';
        signal.addEventListener('abort', () => aborted.push(signal.reason));
        await gate.pass();
        return 'first';
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: 'second',
      attempts: 2,
      // The first attempt was in doubt; of the operation nothing is any more.
      doubtSince: undefined,
    });
    gate.open();
    expect(aborted).toHaveLength(1);
    expect(await attemptKindsOf(app, 'charge:1')).toEqual(['in_doubt']);
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ result: 'second' });
  });

  it('an unrepeatable attempt that times out is in doubt, with a letter, and is not tried again', async () => {
    let calls = 0;
    const processor = processorOf(
      'charges',
      { timeoutMs: 150, retry: QUICK },
      async (_job, _operation, signal) => {
        calls += 1;
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', { amount: 1 }, 'charge:1');
    const outcome = await settled(app, 'charge:1');
    expect(outcome).toMatchObject({ status: 'in_doubt', attempts: 1 });
    expect(outcome.doubtSince).toBeInstanceOf(Date);
    expect(await lettersOf(app)).toMatchObject([{ reason: 'in_doubt', payload: { amount: 1 } }]);
    expect(calls).toBe(1);
  });

  it('a programming error is permanent where the effect can be repeated, and in doubt where it cannot', async () => {
    const broken = (): never => {
      throw new TypeError('undefined is not a function');
    };
    const processors = [
      processorOf('safe', { effect: 'natural', retry: QUICK }, broken),
      processorOf('unsafe', { retry: QUICK }, broken),
    ];
    const { app } = await apps.fresh(backend, { queues: ['safe', 'unsafe'], providers: processors });
    await enqueue(app, 'safe', 'work', {}, 'work:1');
    await enqueue(app, 'unsafe', 'work', {}, 'work:2');
    expect(await settled(app, 'work:1')).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await settled(app, 'work:2')).toMatchObject({ status: 'in_doubt', attempts: 1 });
  });

  it('a time budget ends retrying, and the letter says so', async () => {
    const processor = processorOf(
      'charges',
      { effect: 'keyed', timeBudgetMs: 300, retry: { attempts: 100, backoff: { baseMs: 100, capMs: 100 } } },
      () => {
        throw new TransientError('refused');
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead' });
    expect(await lettersOf(app)).toMatchObject([{ reason: 'time_budget_exceeded' }]);
  });

  it('BullMQ control errors of a handler pass through and spend no attempt', async () => {
    let calls = 0;
    const processor = processorOf('charges', { effect: 'keyed' }, async (job) => {
      calls += 1;
      if (calls > 1) return 'done';
      await job.moveToDelayed(Date.now() + 50, job.token);
      throw new DelayedError();
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const kinds: string[] = [];
    app.get(JobEvents).subscribe(({ kind }) => kinds.push(kind));
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
    expect(calls).toBe(2);
    expect(kinds).toContain('handed_back');
  });

  it("BullMQ's UnrecoverableError ends the operation at once, in the ledger as in BullMQ", async () => {
    const processor = processorOf('charges', { effect: 'keyed', retry: QUICK }, () => {
      throw new UnrecoverableError('the account is closed');
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app)).toMatchObject([{ reason: 'permanent_error' }]);
  });

  it('a result that JSON cannot express completes the operation without one', async () => {
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'keyed' }, () => ({ amount: 1n }))],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const outcome = await settled(app, 'charge:1');
    expect(outcome).toMatchObject({ status: 'completed', attempts: 1 });
    expect(outcome.result).toBeUndefined();
    await eventually(
      () => bullQueue(app, 'charges').getJobCounts('completed'),
      (counts) => expect(counts).toMatchObject({ completed: 1 }),
    );
  });
});
