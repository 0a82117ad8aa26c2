import {
  type CurrentOperation,
  type HistoryEntry,
  type IdempotentProcessorOptions,
  InDoubtError,
  type Outcome,
  OutcomeService,
  Reconciliation,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
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
import {
  type Handler,
  identifyPlain,
  processorOf,
  reconcilingProcessorOf,
  Scripts,
} from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

/** Short enough for tests; the same shape as the real plan. */
const PLAN = { afterMs: [100, 300], thenEveryMs: 400, untilMs: 100_000, timeoutMs: 10_000 };
const RETRY = { attempts: 4, backoff: { baseMs: 20, capMs: 50 } };
const RECONCILED = { effect: 'reconciled', reconcile: PLAN, retry: RETRY } as const;

const QUEUES = {
  charges: RECONCILED,
  plain: { ...RECONCILED, identify: identifyPlain },
  'asked-briefly': { ...RECONCILED, reconcile: { ...PLAN, timeoutMs: 200 } },
  'asked-for-seconds': { ...RECONCILED, reconcile: { ...PLAN, untilMs: 4000 } },
  'late-arrivals': { ...RECONCILED, reconcile: { ...PLAN, lateArrivalMs: 4000 } },
  keyed: {
    effect: 'keyed',
    keyRetentionMs: 3000,
    reconcile: PLAN,
    retry: { attempts: 200, backoff: { baseMs: 100, capMs: 100 } },
  },
} satisfies Record<string, IdempotentProcessorOptions>;

type Reconcile = (operation: CurrentOperation) => unknown;

/** A service whose answer is lost: it may have had its effect. */
function lost(): never {
  throw new InDoubtError('nobody answered');
}

describe.each(BACKENDS)('effects that are looked up, on %s', (backend) => {
  const apps = useApps();

  // One application for all cases but the one of two deployments. Each has a tenant of its own.
  const scripts = new Scripts();
  const lookUps = new Map<string, Reconcile>();
  const app = useOneApp(backend, {
    queues: [...Object.keys(QUEUES), 'receipts'],
    providers: [
      ...Object.entries(QUEUES).map(([queue, options]) =>
        reconcilingProcessorOf(queue, options, scripts.handler, (operation) =>
          lookUps.get(operation.tenantId)?.(operation),
        ),
      ),
      processorOf('receipts', { effect: 'natural' }, () => 'sent'),
    ],
  });
  /** A tenant whose charges are handled, and looked up, so. */
  const tenantWith = (handler: Handler, reconcile: Reconcile): string => {
    const tenant = scripts.tenantWith(handler);
    lookUps.set(tenant, reconcile);
    return tenant;
  };
  /** Charges for such a tenant, and answers with it. */
  const charge = async (
    queue: keyof typeof QUEUES,
    handler: Handler,
    reconcile: Reconcile,
    payload: object = {},
  ): Promise<string> => {
    const tenant = tenantWith(handler, reconcile);
    await enqueue(app(), queue, 'charge', payload, 'charge:1', tenant);
    return tenant;
  };
  const ended = (tenant: string): Promise<Outcome> => settled(app(), 'charge:1', tenant);
  const historyOf = (tenant: string): Promise<HistoryEntry[]> =>
    app().get(OutcomeService).history({ tenantId: tenant, operationKey: 'charge:1' });

  it('applied: the operation completes with what the look-up found, and the handler is not called again', async () => {
    const asked: object[] = [];
    let calls = 0;
    const tenant = await charge(
      'charges',
      () => {
        calls += 1;
        return lost();
      },
      ({ attempt, operationKey, job, tenantId }) => {
        asked.push({ attempt, operationKey, tenantId, payload: job.data });
        return Reconciliation.applied({ chargeId: 'ch_1' });
      },
      { cents: 5 },
    );
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      result: { chargeId: 'ch_1' },
      attempts: 1,
      failures: 1,
      doubtSince: undefined,
    });
    expect(calls).toBe(1);
    expect(asked).toEqual([
      { attempt: 1, operationKey: 'charge:1', tenantId: tenant, payload: { cents: 5 } },
    ]);
    expect(await lettersOf(app(), tenant)).toEqual([]);
    const history = await historyOf(tenant);
    expect(
      history.map((entry) => ('reason' in entry ? `${entry.kind} ${entry.reason}` : entry.kind)),
    ).toEqual(['accepted', 'attempt_failed InDoubtError', 'reconciled applied', 'completed']);
  });

  it('not applied: the handler runs again as the next attempt, and its own doubt is asked about anew', async () => {
    const asked: number[] = [];
    const tenant = await charge(
      'charges',
      (_job, { attempt }) => (attempt < 3 ? lost() : { attempt }),
      ({ attempt }) => {
        asked.push(attempt);
        return Reconciliation.notApplied();
      },
    );
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      result: { attempt: 3 },
      attempts: 3,
      failures: 2,
    });
    expect(asked).toEqual([1, 2]);
  });

  it('looks up before any further attempt, also after an error that says that nothing happened', async () => {
    let calls = 0;
    const tenant = await charge(
      'charges',
      () => {
        calls += 1;
        throw new TransientError('the second service is down, but the first has charged');
      },
      () => Reconciliation.applied('found'),
    );
    expect(await ended(tenant)).toMatchObject({
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
    const tenant = await charge('asked-briefly', lost, () => answers.shift()?.());
    await eventually(
      () => outcomeOf(app(), 'charge:1', tenant),
      (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt', reconcileDueAt: expect.any(Date) }),
    );
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      result: 'at last',
      attempts: 1,
      failures: 1,
    });
    const history = await historyOf(tenant);
    expect(history.flatMap((entry) => (entry.kind === 'reconciled' ? [entry.reason] : []))).toEqual([
      'unknown',
      'failed',
      'no_answer',
      'timeout',
      'applied',
    ]);
    expect(await lettersOf(app(), tenant)).toEqual([]);
  });

  it('unresolved when the plan is over: one dead letter in_doubt, which a person resolves', async () => {
    let asked = 0;
    let calls = 0;
    const tenant = await charge(
      'asked-for-seconds',
      () => ((calls += 1) === 1 ? lost() : 'second time'),
      () => {
        asked += 1;
        return Reconciliation.unknown();
      },
    );
    expect(await ended(tenant)).toMatchObject({
      status: 'in_doubt',
      attempts: 1,
      reconcileDueAt: undefined,
    });
    // At 100 and 300 ms, every 400 ms from then on, and at 4000 ms; late deliveries skip some.
    expect(asked).toBeGreaterThanOrEqual(1);
    expect(asked).toBeLessThanOrEqual(12);
    expect(await lettersOf(app(), tenant)).toMatchObject([
      { reason: 'in_doubt', operation_key: 'charge:1', payload: {} },
    ]);

    const letters = app().get(DeadLetterService);
    const by = { actor: 'ada', note: 'looked' };
    await letters.resolve({ tenantId: tenant, operationKey: 'charge:1' }, Reconciliation.notApplied(), by);
    expect(await ended(tenant)).toMatchObject({ status: 'completed', result: 'second time' });
  });

  it('"not applied" is believed only after the late-arrival window', async () => {
    const askedAt: number[] = [];
    let failedAt = 0;
    let calls = 0;
    const tenant = await charge(
      'late-arrivals',
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
    expect(await ended(tenant)).toMatchObject({
      status: 'completed',
      result: 'again',
      attempts: 2,
    });
    expect(askedAt.length).toBeGreaterThan(1);
    expect(askedAt.at(-1)).toBeGreaterThanOrEqual(4000);
  });

  it('enqueues with the outcome what reconcile() asks for, if it answers applied, and nothing otherwise', async () => {
    let asked = 0;
    const tenant = await charge('charges', lost, (operation) => {
      asked += 1;
      const key = asked === 1 ? 'receipt:early' : 'receipt:1';
      operation.enqueue(idempotentQueue(app(), 'receipts'), 'receipt', { asked }, { operationKey: key });
      return asked === 1 ? Reconciliation.unknown() : Reconciliation.applied();
    });
    expect(await settled(app(), 'receipt:1', tenant)).toMatchObject({ status: 'completed' });
    expect(await outcomeOf(app(), 'receipt:early', tenant)).toBeUndefined();
  });

  it('keyed: past the retention of its keys it is asked about instead of being repeated', async () => {
    let calls = 0;
    const tenant = await charge(
      'keyed',
      () => {
        calls += 1;
        return lost();
      },
      () => Reconciliation.applied({ calls }),
    );
    const outcome = await ended(tenant);
    expect(outcome).toMatchObject({ status: 'completed', attempts: calls, result: { calls } });
    expect(calls).toBeGreaterThan(1);
  });

  it('two deliveries of an operation in doubt: one asks, the other waits for its answer', async () => {
    let asking = 0;
    let most = 0;
    const tenant = tenantWith(lost, async () => {
      asking += 1;
      most = Math.max(most, asking);
      await new Promise((resolve) => setTimeout(resolve, 300));
      asking -= 1;
      return Reconciliation.applied('found');
    });
    await Promise.all([1, 2, 3].map(() => deliver(app(), 'plain', 'charge:1', {}, tenant)));
    expect(await ended(tenant)).toMatchObject({ status: 'completed', attempts: 1 });
    expect(most).toBe(1);
  });

  it('is buried when the deployment that follows cannot ask any more', async () => {
    const plan = { ...PLAN, afterMs: [60_000], untilMs: 90_000 };
    const asking = reconcilingProcessorOf('charges', { ...RECONCILED, reconcile: plan }, lost, () =>
      Reconciliation.unknown(),
    );
    const { app: first, place } = await apps.fresh(backend, { queues: ['charges'], providers: [asking] });
    await enqueue(first, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => outcomeOf(first, 'charge:1'),
      (outcome) => expect(outcome?.status).toBe('in_doubt'),
    );
    await apps.close(first);
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
