import type { INestApplicationContext, LoggerService, Provider } from '@nestjs/common';
import { FlowProducer } from 'bullmq';
import {
  type EnqueueOptions,
  type HistoryEntry,
  type IdempotentJobsOptions,
  type IdempotentProcessorOptions,
  InDoubtError,
  OutcomeService,
  RetryLaterError,
  type RetryPolicies,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { type FailureKind, UsageError } from 'nestjs-idempotent-jobs/errors';
import { DispatchService } from 'nestjs-idempotent-jobs/operate';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { type Handler, processorOf, Scripts } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const backoff = { baseMs: 10, capMs: 20 };
/** Told apart by how many attempts each allows. */
const POLICIES: RetryPolicies = {
  once: { attempts: 1, backoff },
  twice: { attempts: 2, backoff },
  thrice: { attempts: 3, backoff },
};
const refuse: Handler = () => {
  throw new TransientError('refused');
};

const says = (kind: FailureKind) => (error: unknown) =>
  error instanceof Error && error.message === 'declined' ? kind : undefined;

const retry = { attempts: 2, backoff };
const WAITS = { baseMs: 8, capMs: 400 };
/** The queues of the application that most cases share, and how their processors try again. */
const QUEUES: Readonly<Record<string, IdempotentProcessorOptions>> = {
  charges: { effect: 'keyed', retry: 'once' },
  'by-name': {
    effect: 'keyed',
    retry: 'twice',
    retryByJob: { refund: 'thrice', audit: { attempts: 4, backoff } },
  },
  steady: {
    effect: 'keyed',
    retry: { attempts: 3, backoff },
    retryByJob: { slow: { attempts: 3, backoff: { baseMs: 600_000, capMs: 600_000, jitter: 'equal' } } },
  },
  mails: { retry: { attempts: 3, backoff } },
  decorrelated: { effect: 'keyed', retry: { attempts: 8, backoff: { ...WAITS, jitter: 'decorrelated' } } },
  'by-processor': { dependency: 'gateway', classify: says('transient'), retry },
  'by-dependency': { dependency: 'gateway', retry },
  'by-call': { dependency: 'gateway', retry },
  'by-nobody': { retry },
};

const of = (operationKey: string, tenantId = 'acme') => ({ operationKey, tenantId });
const thrice = (tenantId?: string): EnqueueOptions => ({
  ...of('charge:1', tenantId),
  retryPolicy: 'thrice',
});

type FailedAttempt = Extract<HistoryEntry, { kind: 'attempt_failed' }>;

async function failuresOf(
  app: INestApplicationContext,
  operationKey: string,
  tenantId: string,
): Promise<FailedAttempt[]> {
  const history = await app.get(OutcomeService).history(of(operationKey, tenantId));
  return history.filter((entry) => entry.kind === 'attempt_failed');
}

describe.each(BACKENDS)('retry policies, on %s', (backend) => {
  const apps = useApps();
  const scripts = new Scripts();
  const app = useOneApp(backend, {
    queues: Object.keys(QUEUES),
    providers: Object.entries(QUEUES).map(([queue, options]) => processorOf(queue, options, scripts.handler)),
    jobs: {
      retryPolicies: POLICIES,
      dependencies: {
        gateway: { breaker: false, retryBudget: false, classify: says('permanent') },
        rates: { breaker: false, retryBudget: false, classify: says('transient') },
      },
    },
  });

  const begin = (
    providers: readonly Provider[],
    jobs: IdempotentJobsOptions = { retryPolicies: POLICIES },
  ): Promise<{ app: INestApplicationContext; place: Place }> =>
    apps.fresh(backend, { queues: ['charges'], providers, jobs });
  const attemptsAtDeath = async (
    at: INestApplicationContext,
    operationKey: string,
    tenantId?: string,
  ): Promise<number> => {
    const { status, attempts } = await settled(at, operationKey, tenantId);
    expect({ operationKey, status }).toEqual({ operationKey, status: 'dead' });
    return attempts;
  };

  it('a job is tried under the policy of its operation, else of its name, else of its processor', async () => {
    const tenant = scripts.tenantWith(refuse);
    const queue = idempotentQueue(app(), 'by-name');
    await queue.enqueue('charge', {}, of('charge', tenant));
    await queue.enqueue('refund', {}, of('refund', tenant));
    await queue.enqueue('audit', {}, of('audit', tenant));
    await queue.enqueue('charge', {}, { ...of('charge under another', tenant), retryPolicy: 'thrice' });
    await queue.enqueue('refund', {}, { ...of('refund under another', tenant), retryPolicy: 'once' });
    expect(await attemptsAtDeath(app(), 'charge', tenant)).toBe(2);
    expect(await attemptsAtDeath(app(), 'refund', tenant)).toBe(3);
    expect(await attemptsAtDeath(app(), 'audit', tenant)).toBe(4);
    expect(await attemptsAtDeath(app(), 'charge under another', tenant)).toBe(3);
    expect(await attemptsAtDeath(app(), 'refund under another', tenant)).toBe(1);
  });

  it('a policy brings its timeout and its time budget', async () => {
    const hang: Handler = (_job, { signal }) =>
      new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))));
    const { app } = await begin([processorOf('charges', { effect: 'keyed' }, hang)], {
      retryPolicies: {
        hasty: { attempts: 2, timeoutMs: 60, backoff },
        brief: { timeoutMs: 50, timeBudgetMs: 120, backoff: { baseMs: 100, capMs: 100, jitter: 'equal' } },
      },
    });
    const queue = idempotentQueue(app, 'charges');
    await queue.enqueue('charge', {}, { ...of('hasty'), retryPolicy: 'hasty' });
    await queue.enqueue('charge', {}, { ...of('brief'), retryPolicy: 'brief' });
    expect(await attemptsAtDeath(app, 'hasty')).toBe(2);
    expect(await attemptsAtDeath(app, 'brief')).toBeLessThan(5);
    const reasons = (await lettersOf(app)).map(({ operation_key: key, reason }) => [key, reason]);
    expect(Object.fromEntries(reasons)).toEqual({
      hasty: 'retries_exhausted',
      brief: 'time_budget_exceeded',
    });
  });

  it.each<[string, (tenant: string) => Promise<unknown>]>([
    [
      'by the dispatcher',
      (tenant) => idempotentQueue(app(), 'charges').enqueue('charge', {}, thrice(tenant)),
    ],
    [
      'straight to the queue',
      (tenant) =>
        idempotentQueue(app(), 'charges').enqueue('charge', {}, { ...thrice(tenant), durability: 'queue' }),
    ],
    [
      'with many others in a transaction',
      (tenant) =>
        dataSourceOf(app()).transaction((transaction) =>
          idempotentQueue(app(), 'charges').enqueueMany(
            [
              { name: 'charge', payload: {}, ...of('charge:0', tenant) },
              { name: 'charge', payload: {}, ...thrice(tenant) },
            ],
            { transaction },
          ),
        ),
    ],
    [
      'as a node of a flow',
      async (tenant) => {
        const { connection, prefix } = bullQueue(app(), 'charges').opts;
        const producer = new FlowProducer({ connection, prefix });
        try {
          await producer.add(idempotentQueue(app(), 'charges').flowJob('charge', {}, thrice(tenant)));
        } finally {
          await producer.close();
        }
      },
    ],
  ])('an operation brings its policy %s', async (_how, ask) => {
    const tenant = scripts.tenantWith(refuse);
    await ask(tenant);
    expect(await attemptsAtDeath(app(), 'charge:1', tenant)).toBe(3);
    if ((await outcomeOf(app(), 'charge:0', tenant)) !== undefined)
      expect(await attemptsAtDeath(app(), 'charge:0', tenant)).toBe(1);
  });

  it('each iteration of a schedule brings its policy', async () => {
    const tenant = scripts.tenantWith(refuse);
    const queue = idempotentQueue(app(), 'charges');
    await queue.schedule('charge', {}, { ...of('report', tenant), every: 200, retryPolicy: 'thrice' });
    await eventually(
      () => lettersOf(app(), tenant),
      (letters) => expect(letters.length).toBeGreaterThanOrEqual(2),
    );
    await queue.unschedule(of('report', tenant));
    for (const letter of await lettersOf(app(), tenant))
      expect(letter).toMatchObject({ reason: 'retries_exhausted', attempts: 3 });
  });

  it('an operation keeps its policy when its queue is lost and filled again, and when it is redriven', async () => {
    const NEVER = { redispatchAfterMs: 3_600_000, pollMs: 600_000 };
    const { app, place } = await begin([], { retryPolicies: POLICIES, dispatch: NEVER });
    const { jobId } = await idempotentQueue(app, 'charges').enqueue('charge', {}, thrice());
    const bull = bullQueue(app, 'charges');
    await eventually(
      () => bull.getJob(jobId),
      (job) => expect(job?.data).toMatchObject({ operation: { retryPolicy: 'thrice' } }),
    );
    await bull.obliterate({ force: true });
    expect(await bull.getJob(jobId)).toBeUndefined();
    expect(await app.get(DispatchService).redispatchUnsettled({ queue: 'charges' })).toMatchObject({
      operations: 1,
    });
    const worker = await apps.beside(place, {
      queues: ['charges'],
      providers: [processorOf('charges', { effect: 'keyed', retry: 'once' }, refuse)],
      jobs: { retryPolicies: POLICIES },
    });
    expect(await attemptsAtDeath(worker, 'charge:1')).toBe(3);
    const by = { actor: 'ada', note: 'once more' };
    await worker.get(DeadLetterService).redrive(of('charge:1'), by);
    await eventually(
      () => lettersOf(worker),
      (letters) => expect(letters).toHaveLength(2),
    );
    expect(await attemptsAtDeath(worker, 'charge:1')).toBe(3);
  });

  it('a worker that does not know the policy says so once, and tries under its processor’s own', async () => {
    const { app, place } = await begin([]);
    const warnings: string[] = [];
    const logger: LoggerService = {
      log: () => undefined,
      error: () => undefined,
      warn: (message: string) => warnings.push(message),
    };
    const queue = idempotentQueue(app, 'charges');
    for (const key of ['charge:1', 'charge:2'])
      await queue.enqueue('charge', {}, { ...of(key), retryPolicy: 'thrice' });
    const stranger = processorOf('charges', { effect: 'keyed', retry: { attempts: 2, backoff } }, refuse);
    const worker = await apps.beside(place, { queues: ['charges'], providers: [stranger], logger });
    for (const key of ['charge:1', 'charge:2']) expect(await attemptsAtDeath(worker, key)).toBe(2);
    expect(warnings.filter((warning) => warning.includes('retry policy'))).toEqual([
      'Jobs of queue "charges" ask for retry policy "thrice", which forRoot({ retryPolicies }) of this application does not have; they run as if they had not asked.',
    ]);
  });

  it('a policy that nobody has declared is refused before anything is written', async () => {
    const tenant = scripts.tenantWith(refuse);
    const queue = idempotentQueue(app(), 'charges');
    const slip = { ...of('charge:1', tenant), retryPolicy: 'thirce' };
    await expect(queue.enqueue('charge', {}, slip)).rejects.toThrow(UsageError);
    await expect(queue.enqueueMany([{ name: 'charge', payload: {}, ...slip }])).rejects.toThrow(
      'which has "once", "twice", "thrice", but is the string "thirce"',
    );
    await expect(queue.schedule('charge', {}, { ...slip, every: 1_000 })).rejects.toThrow(UsageError);
    expect(await outcomeOf(app(), 'charge:1', tenant)).toBeUndefined();
  });

  it('the history says why each attempt was followed by another, or by none', async () => {
    const tenant = scripts.tenantWith((job, { attempt }) => {
      if (job.name === 'mail') throw new InDoubtError('nobody answered');
      if (job.name === 'asks for time' && attempt === 1) throw new RetryLaterError(100);
      throw new TransientError('refused');
    });
    await enqueue(app(), 'steady', 'charge', {}, 'charge:1', tenant);
    await enqueue(app(), 'steady', 'asks for time', {}, 'charge:2', tenant);
    await idempotentQueue(app(), 'steady').enqueue(
      'slow',
      {},
      { ...of('charge:3', tenant), deadline: new Date(Date.now() + 60_000) },
    );
    await enqueue(app(), 'mails', 'mail', {}, 'mail:1', tenant);
    const decisions = async (key: string): Promise<(string | undefined)[]> => {
      await settled(app(), key, tenant);
      return (await failuresOf(app(), key, tenant)).map(({ decision }) => decision);
    };
    expect(await decisions('charge:1')).toEqual(['backoff', 'backoff', 'attempts_spent']);
    expect(await decisions('charge:2')).toEqual(['retry_after', 'backoff', 'attempts_spent']);
    expect(await decisions('charge:3')).toEqual(['time_budget_spent']);
    expect(await decisions('mail:1')).toEqual(['may_have_happened']);
    const [first, , last] = await failuresOf(app(), 'charge:2', tenant);
    expect(first?.delayMs).toBeGreaterThanOrEqual(100);
    expect(last?.delayMs).toBeUndefined();
  });

  it('decorrelated waits are between the base and three times the last one, and grow from each other', async () => {
    const { baseMs, capMs } = WAITS;
    const tenant = scripts.tenantWith(refuse);
    const keys = Array.from({ length: 12 }, (_none, index) => `charge:${index}`);
    for (const key of keys) await enqueue(app(), 'decorrelated', 'charge', {}, key, tenant);
    const waits = await Promise.all(
      keys.map(async (key) => {
        expect(await attemptsAtDeath(app(), key, tenant)).toBe(8);
        return (await failuresOf(app(), key, tenant)).flatMap(({ delayMs }) => delayMs ?? []);
      }),
    );
    for (const ofOne of waits) {
      expect(ofOne).toHaveLength(7);
      ofOne.forEach((wait, index) => {
        const last = ofOne[index - 1] ?? baseMs;
        expect(wait).toBeGreaterThanOrEqual(baseMs);
        expect(wait).toBeLessThanOrEqual(Math.min(capMs, Math.max(baseMs, 3 * last)));
      });
    }
    // If the last wait were forgotten, none of the 84 could be longer than this.
    expect(Math.max(...waits.flat())).toBeGreaterThan(3 * baseMs);
  });

  it('errors are read by the processor first, then by the dependency whose call threw, then by the processor’s dependency', async () => {
    const declined = (): never => {
      throw new Error('declined');
    };
    const tenant = scripts.tenantWith((job) => {
      if (job.queueName !== 'by-call') return declined();
      return app()
        .get(DependencyGuard)
        .call('rates', declined)
        .catch((cause: unknown) => {
          throw new Error('no rate', { cause });
        });
    });
    const ends: Record<string, string> = {};
    for (const queue of ['by-processor', 'by-dependency', 'by-call', 'by-nobody']) {
      await enqueue(app(), queue, 'job', {}, queue, tenant);
      const { status, attempts } = await settled(app(), queue, tenant);
      const [failed] = await failuresOf(app(), queue, tenant);
      ends[queue] = `${failed?.failure}, ${attempts} attempts, ${status}`;
    }
    expect(ends).toEqual({
      'by-processor': 'transient, 2 attempts, dead',
      'by-dependency': 'permanent, 1 attempts, dead',
      'by-call': 'transient, 2 attempts, dead',
      'by-nobody': 'unknown, 1 attempts, in_doubt',
    });
  });
});
