import { InDoubtError, OutcomeService, Reconciliation, TransientError } from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  bullQueue,
  deliver,
  enqueue,
  idempotentQueue,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { identifyPlain, processorOf, reconcilingProcessorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

/** Short enough for tests; the same shape as the real plan. */
const PLAN = { afterMs: [100, 300], thenEveryMs: 400, untilMs: 100_000, timeoutMs: 10_000 };
const RETRY = { attempts: 4, backoff: { baseMs: 20, capMs: 50 } };
const RECONCILED = { effect: 'reconciled', reconcile: PLAN, retry: RETRY } as const;

/** A service whose answer is lost: it may have had its effect. */
function lost(): never {
  throw new InDoubtError('nobody answered');
}

describe.each(BACKENDS)('effects that are looked up, on %s', (backend) => {
  const apps = useApps();

  it('applied: the operation completes with what the look-up found, and the handler is not called again', async () => {
    const asked: object[] = [];
    let calls = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      RECONCILED,
      () => {
        calls += 1;
        return lost();
      },
      ({ attempt, operationKey, job, tenantId }) => {
        asked.push({ attempt, operationKey, tenantId, payload: job.data });
        return Reconciliation.applied({ chargeId: 'ch_1' });
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', { cents: 5 }, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: { chargeId: 'ch_1' },
      attempts: 1,
      failures: 1,
      doubtSince: undefined,
    });
    expect(calls).toBe(1);
    expect(asked).toEqual([
      { attempt: 1, operationKey: 'charge:1', tenantId: 'acme', payload: { cents: 5 } },
    ]);
    expect(await lettersOf(app)).toEqual([]);
    const history = await app.get(OutcomeService).history({ tenantId: 'acme', operationKey: 'charge:1' });
    expect(
      history.map((entry) => ('reason' in entry ? `${entry.kind} ${entry.reason}` : entry.kind)),
    ).toEqual(['accepted', 'attempt_failed InDoubtError', 'reconciled applied', 'completed']);
  });

  it('not applied: the handler runs again as the next attempt, and its own doubt is asked about anew', async () => {
    const asked: number[] = [];
    const processor = reconcilingProcessorOf(
      'charges',
      RECONCILED,
      (_job, { attempt }) => (attempt < 3 ? lost() : { attempt }),
      ({ attempt }) => {
        asked.push(attempt);
        return Reconciliation.notApplied();
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: { attempt: 3 },
      attempts: 3,
      failures: 2,
    });
    expect(asked).toEqual([1, 2]);
  });

  it('looks up before any further attempt, also after an error that says that nothing happened', async () => {
    let calls = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      RECONCILED,
      () => {
        calls += 1;
        throw new TransientError('the second service is down, but the first has charged');
      },
      () => Reconciliation.applied('found'),
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: 'found',
      attempts: 1,
    });
    expect(calls).toBe(1);
  });

  it('unknown, an error, silence and nonsense do no harm: it is asked again, without attempts, until it knows', async () => {
    const answers: (() => unknown)[] = [
      () => Reconciliation.unknown(),
      () => {
        throw new Error('the look-up is down');
      },
      () => 'yes',
      () => new Promise(() => undefined),
      () => Reconciliation.applied('at last'),
    ];
    const plan = { ...PLAN, timeoutMs: 200 };
    const processor = reconcilingProcessorOf('charges', { ...RECONCILED, reconcile: plan }, lost, () =>
      answers.shift()?.(),
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt', reconcileDueAt: expect.any(Date) }),
    );
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: 'at last',
      attempts: 1,
      failures: 1,
    });
    const history = await app.get(OutcomeService).history({ tenantId: 'acme', operationKey: 'charge:1' });
    expect(history.flatMap((entry) => (entry.kind === 'reconciled' ? [entry.reason] : []))).toEqual([
      'unknown',
      'failed',
      'no_answer',
      'timeout',
      'applied',
    ]);
    expect(await lettersOf(app)).toEqual([]);
  });

  it('unresolved when the plan is over: one dead letter in_doubt, which a person resolves', async () => {
    let asked = 0;
    let calls = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      { ...RECONCILED, reconcile: { ...PLAN, untilMs: 4000 } },
      () => ((calls += 1) === 1 ? lost() : 'second time'),
      () => {
        asked += 1;
        return Reconciliation.unknown();
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'in_doubt',
      attempts: 1,
      reconcileDueAt: undefined,
    });
    // At 100 and 300 ms, every 400 ms from then on, and at 4000 ms; late deliveries skip some.
    expect(asked).toBeGreaterThanOrEqual(1);
    expect(asked).toBeLessThanOrEqual(12);
    expect(await lettersOf(app)).toMatchObject([
      { reason: 'in_doubt', operation_key: 'charge:1', payload: {} },
    ]);

    const letters = app.get(DeadLetterService);
    const by = { actor: 'ada', note: 'looked' };
    await letters.resolve({ tenantId: 'acme', operationKey: 'charge:1' }, Reconciliation.notApplied(), by);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: 'second time' });
  });

  it('"not applied" is believed only after the late-arrival window', async () => {
    const askedAt: number[] = [];
    let failedAt = 0;
    let calls = 0;
    const reconcile = { ...PLAN, lateArrivalMs: 4000 };
    const processor = reconcilingProcessorOf(
      'charges',
      { ...RECONCILED, reconcile },
      () => {
        calls += 1;
        if (calls > 1) return 'again';
        failedAt = performance.now();
        return lost();
      },
      () => {
        askedAt.push(performance.now() - failedAt);
        return Reconciliation.notApplied();
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: 'again',
      attempts: 2,
    });
    expect(askedAt.length).toBeGreaterThan(1);
    expect(askedAt.at(-1)).toBeGreaterThanOrEqual(4000);
  });

  it('enqueues with the outcome what reconcile() asks for, if it answers applied, and nothing otherwise', async () => {
    let asked = 0;
    const charges = reconcilingProcessorOf('charges', RECONCILED, lost, (operation) => {
      asked += 1;
      const key = asked === 1 ? 'receipt:early' : 'receipt:1';
      operation.enqueue(idempotentQueue(app, 'receipts'), 'receipt', { asked }, { operationKey: key });
      return asked === 1 ? Reconciliation.unknown() : Reconciliation.applied();
    });
    const receipts = processorOf('receipts', { effect: 'natural' }, () => 'sent');
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'receipts'],
      providers: [charges, receipts],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'receipt:1')).toMatchObject({ status: 'completed' });
    expect(await outcomeOf(app, 'receipt:early')).toBeUndefined();
  });

  it('keyed: past the retention of its keys it is asked about instead of being repeated', async () => {
    let calls = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      {
        effect: 'keyed',
        keyRetentionMs: 3000,
        reconcile: PLAN,
        retry: { attempts: 200, backoff: { baseMs: 100, capMs: 100 } },
      },
      () => {
        calls += 1;
        return lost();
      },
      () => Reconciliation.applied({ calls }),
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const outcome = await settled(app, 'charge:1');
    expect(outcome).toMatchObject({ status: 'completed', attempts: calls, result: { calls } });
    expect(calls).toBeGreaterThan(1);
  });

  it('two deliveries of an operation in doubt: one asks, the other waits for its answer', async () => {
    let asking = 0;
    let most = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      { ...RECONCILED, identify: identifyPlain },
      lost,
      async () => {
        asking += 1;
        most = Math.max(most, asking);
        await new Promise((resolve) => setTimeout(resolve, 300));
        asking -= 1;
        return Reconciliation.applied('found');
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await Promise.all([1, 2, 3].map(() => deliver(app, 'charges', 'charge:1')));
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
    expect(most).toBe(1);
  });

  it('is buried when the deployment that follows cannot ask any more', async () => {
    const plan = { ...PLAN, afterMs: [60_000], untilMs: 90_000 };
    const asking = reconcilingProcessorOf('charges', { ...RECONCILED, reconcile: plan }, lost, () =>
      Reconciliation.unknown(),
    );
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers: [asking] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome?.status).toBe('in_doubt'),
    );
    await apps.close(app);
    let calls = 0;
    const plain = processorOf('charges', { effect: 'unrepeatable' }, () => (calls += 1));
    const later = await apps.beside(place, { queues: ['charges'], providers: [plain] });
    const [job] = await bullQueue(later, 'charges').getDelayed();
    await job?.promote();
    await eventually(
      () => lettersOf(later),
      (letters) => expect(letters).toMatchObject([{ reason: 'in_doubt', operation_key: 'charge:1' }]),
    );
    expect(calls).toBe(0);
    expect(await outcomeOf(later, 'charge:1')).toMatchObject({
      status: 'in_doubt',
      reconcileDueAt: undefined,
    });
  });
});
