import { PermanentError } from 'nestjs-idempotent-jobs';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, deliver, lettersOf, outcomeOf, settled, stateOf } from '../support/ledger.js';
import { Gate, identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

describe.each(BACKENDS)('the answers of a claim, on %s', (backend) => {
  const apps = useApps();

  it('acquired: the first delivery runs the handler as attempt 1', async () => {
    const attempts: number[] = [];
    const processor = processorOf(
      'charges',
      { effect: 'keyed', identify: identifyPlain },
      (_job, operation) => {
        attempts.push(operation.attempt);
        return { receipt: 1 };
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await deliver(app, 'charges', 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: { receipt: 1 },
      attempts: 1,
      failures: 0,
    });
    expect(attempts).toEqual([1]);
  });

  it('replay: a second delivery of a completed operation gets its result and calls no handler', async () => {
    let calls = 0;
    const processor = processorOf('charges', { effect: 'keyed', identify: identifyPlain }, () => ({
      receipt: (calls += 1),
    }));
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const first = await deliver(app, 'charges', 'charge:1');
    await eventually(
      () => stateOf(app, 'charges', first),
      (state) => expect(state).toBe('completed'),
    );
    const second = await deliver(app, 'charges', 'charge:1');
    await eventually(
      () => stateOf(app, 'charges', second),
      (state) => expect(state).toBe('completed'),
    );
    const replayed = await bullQueue(app, 'charges').getJob(second.id as string);
    expect(replayed?.returnvalue).toEqual({ receipt: 1 });
    expect(calls).toBe(1);
  });

  it('busy: a delivery that meets a running operation is put off and spends no attempt', async () => {
    const gate = new Gate();
    let calls = 0;
    const processor = processorOf(
      'charges',
      { effect: 'keyed', leaseMs: 10_000, identify: identifyPlain },
      async () => {
        calls += 1;
        await gate.pass();
        return 'done';
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await deliver(app, 'charges', 'charge:1');
    await gate.arrival;
    const second = await deliver(app, 'charges', 'charge:1');
    await eventually(
      () => stateOf(app, 'charges', second),
      (state) => expect(state).toBe('delayed'),
    );
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'running', attempts: 1 });
    gate.open();
    await eventually(
      () => stateOf(app, 'charges', second),
      (state) => expect(state).toBe('completed'),
    );
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1, failures: 0 });
    expect(calls).toBe(1);
  });

  it('conflict: another payload under the same key is buried and leaves the first operation alone', async () => {
    let calls = 0;
    const processor = processorOf(
      'charges',
      { effect: 'keyed', identify: identifyPlain },
      () => (calls += 1),
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await deliver(app, 'charges', 'charge:1', { amount: 10 });
    await settled(app, 'charge:1');
    const other = await deliver(app, 'charges', 'charge:1', { amount: 99 });
    await eventually(
      () => stateOf(app, 'charges', other),
      (state) => expect(state).toBe('failed'),
    );
    expect(await lettersOf(app)).toMatchObject([
      {
        reason: 'idempotency_conflict',
        tenant_id: 'acme',
        operation_key: 'charge:1',
        payload: { amount: 99 },
      },
    ]);
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'completed', result: 1, attempts: 1 });
    expect(calls).toBe(1);
  });

  it('in doubt: a delivery of an operation in doubt runs nothing and fails for good', async () => {
    let calls = 0;
    const processor = processorOf('charges', { effect: 'unrepeatable', identify: identifyPlain }, () => {
      calls += 1;
      throw new Error('the answer was garbled');
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await deliver(app, 'charges', 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt', attempts: 1, failures: 1 });
    const again = await deliver(app, 'charges', 'charge:1');
    await eventually(
      () => stateOf(app, 'charges', again),
      (state) => expect(state).toBe('failed'),
    );
    expect(calls).toBe(1);
    expect(await lettersOf(app)).toMatchObject([{ reason: 'in_doubt', operation_key: 'charge:1' }]);
  });

  it('dead: a delivery of a dead operation, and a stray retry of its job, run nothing', async () => {
    let calls = 0;
    const processor = processorOf('charges', { effect: 'keyed', identify: identifyPlain }, () => {
      calls += 1;
      throw new PermanentError('the card is stolen');
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const first = await deliver(app, 'charges', 'charge:1');
    await eventually(
      () => stateOf(app, 'charges', first),
      (state) => expect(state).toBe('failed'),
    );
    const again = await deliver(app, 'charges', 'charge:1');
    await eventually(
      () => stateOf(app, 'charges', again),
      (state) => expect(state).toBe('failed'),
    );
    const failed = await bullQueue(app, 'charges').getJob(again.id as string);
    expect(failed?.failedReason).toMatch(/redrive/);
    await failed?.retry();
    await eventually(
      () => stateOf(app, 'charges', again),
      (state) => expect(state).toBe('failed'),
    );
    expect(calls).toBe(1);
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app)).toHaveLength(1);
  });
});
