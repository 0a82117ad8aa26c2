import type { INestApplicationContext, LoggerService, Provider } from '@nestjs/common';
import { FlowProducer } from 'bullmq';
import {
  type EnqueueOptions,
  type HistoryEntry,
  type IdempotentJobsOptions,
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
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { type Handler, processorOf } from '../support/processors.js';
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

const of = (operationKey: string) => ({ operationKey, tenantId: 'acme' });

type FailedAttempt = Extract<HistoryEntry, { kind: 'attempt_failed' }>;

async function failuresOf(app: INestApplicationContext, operationKey: string): Promise<FailedAttempt[]> {
  const history = await app.get(OutcomeService).history(of(operationKey));
  return history.filter((entry) => entry.kind === 'attempt_failed');
}

describe.each(BACKENDS)('retry policies, on %s', (backend) => {
  const apps = useApps();

  const begin = (
    providers: readonly Provider[],
    jobs: IdempotentJobsOptions = { retryPolicies: POLICIES },
  ): Promise<{ app: INestApplicationContext; place: Place }> =>
    apps.fresh(backend, { queues: ['charges'], providers, jobs });
  const attemptsAtDeath = async (app: INestApplicationContext, operationKey: string): Promise<number> => {
    const { status, attempts } = await settled(app, operationKey);
    expect({ operationKey, status }).toEqual({ operationKey, status: 'dead' });
    return attempts;
  };

  it('a job is tried under the policy of its operation, else of its name, else of its processor', async () => {
    const { app } = await begin([
      processorOf(
        'charges',
        {
          effect: 'keyed',
          retry: 'twice',
          retryByJob: { refund: 'thrice', audit: { attempts: 4, backoff } },
        },
        refuse,
      ),
    ]);
    const queue = idempotentQueue(app, 'charges');
    await queue.enqueue('charge', {}, of('charge'));
    await queue.enqueue('refund', {}, of('refund'));
    await queue.enqueue('audit', {}, of('audit'));
    await queue.enqueue('charge', {}, { ...of('charge under another'), retryPolicy: 'thrice' });
    await queue.enqueue('refund', {}, { ...of('refund under another'), retryPolicy: 'once' });
    expect(await attemptsAtDeath(app, 'charge')).toBe(2);
    expect(await attemptsAtDeath(app, 'refund')).toBe(3);
    expect(await attemptsAtDeath(app, 'audit')).toBe(4);
    expect(await attemptsAtDeath(app, 'charge under another')).toBe(3);
    expect(await attemptsAtDeath(app, 'refund under another')).toBe(1);
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

  const own = processorOf('charges', { effect: 'keyed', retry: 'once' }, refuse);
  const THRICE: EnqueueOptions = { ...of('charge:1'), retryPolicy: 'thrice' };

  it.each<[string, (app: INestApplicationContext, place: Place) => Promise<unknown>]>([
    ['by the dispatcher', (app) => idempotentQueue(app, 'charges').enqueue('charge', {}, THRICE)],
    [
      'straight to the queue',
      (app) => idempotentQueue(app, 'charges').enqueue('charge', {}, { ...THRICE, durability: 'queue' }),
    ],
    [
      'with many others in a transaction',
      (app) =>
        dataSourceOf(app).transaction((transaction) =>
          idempotentQueue(app, 'charges').enqueueMany(
            [
              { name: 'charge', payload: {}, ...of('charge:0') },
              { name: 'charge', payload: {}, ...THRICE },
            ],
            { transaction },
          ),
        ),
    ],
    [
      'as a node of a flow',
      async (app, place) => {
        const producer = new FlowProducer({ connection: place.connection, prefix: place.prefix });
        try {
          await producer.add(idempotentQueue(app, 'charges').flowJob('charge', {}, THRICE));
        } finally {
          await producer.close();
        }
      },
    ],
  ])('an operation brings its policy %s', async (_how, ask) => {
    const { app, place } = await begin([own]);
    await ask(app, place);
    expect(await attemptsAtDeath(app, 'charge:1')).toBe(3);
    if ((await outcomeOf(app, 'charge:0')) !== undefined)
      expect(await attemptsAtDeath(app, 'charge:0')).toBe(1);
  });

  it('each iteration of a schedule brings its policy', async () => {
    const { app } = await begin([own]);
    const queue = idempotentQueue(app, 'charges');
    await queue.schedule('charge', {}, { ...of('report'), every: 200, retryPolicy: 'thrice' });
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters.length).toBeGreaterThanOrEqual(2),
    );
    await queue.unschedule(of('report'));
    for (const letter of await lettersOf(app))
      expect(letter).toMatchObject({ reason: 'retries_exhausted', attempts: 3 });
  });

  it('an operation keeps its policy when its queue is lost and filled again, and when it is redriven', async () => {
    const NEVER = { redispatchAfterMs: 3_600_000, pollMs: 600_000 };
    const { app, place } = await begin([], { retryPolicies: POLICIES, dispatch: NEVER });
    const { jobId } = await idempotentQueue(app, 'charges').enqueue('charge', {}, THRICE);
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
      providers: [own],
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
    const { app } = await begin([]);
    const queue = idempotentQueue(app, 'charges');
    const slip = { ...of('charge:1'), retryPolicy: 'thirce' };
    await expect(queue.enqueue('charge', {}, slip)).rejects.toThrow(UsageError);
    await expect(queue.enqueueMany([{ name: 'charge', payload: {}, ...slip }])).rejects.toThrow(
      'which has "once", "twice", "thrice", but is the string "thirce"',
    );
    await expect(queue.schedule('charge', {}, { ...slip, every: 1_000 })).rejects.toThrow(UsageError);
    expect(await outcomeOf(app, 'charge:1')).toBeUndefined();
  });

  it('the history says why each attempt was followed by another, or by none', async () => {
    const careful = processorOf('mails', { retry: { attempts: 3, backoff } }, () => {
      throw new InDoubtError('nobody answered');
    });
    const charges = processorOf(
      'charges',
      {
        effect: 'keyed',
        retry: { attempts: 3, backoff },
        retryByJob: { slow: { attempts: 3, backoff: { baseMs: 20_000, capMs: 20_000, jitter: 'equal' } } },
      },
      (job, { attempt }) => {
        if (job.name === 'asks for time' && attempt === 1) throw new RetryLaterError(100);
        throw new TransientError('refused');
      },
    );
    const { app } = await apps.fresh(backend, {
      queues: ['charges', 'mails'],
      providers: [charges, careful],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await enqueue(app, 'charges', 'asks for time', {}, 'charge:2');
    await idempotentQueue(app, 'charges').enqueue(
      'slow',
      {},
      { ...of('charge:3'), deadline: new Date(Date.now() + 5_000) },
    );
    await enqueue(app, 'mails', 'mail', {}, 'mail:1');
    const decisions = async (key: string): Promise<(string | undefined)[]> => {
      await settled(app, key);
      return (await failuresOf(app, key)).map(({ decision }) => decision);
    };
    expect(await decisions('charge:1')).toEqual(['backoff', 'backoff', 'attempts_spent']);
    expect(await decisions('charge:2')).toEqual(['retry_after', 'backoff', 'attempts_spent']);
    expect(await decisions('charge:3')).toEqual(['time_budget_spent']);
    expect(await decisions('mail:1')).toEqual(['may_have_happened']);
    const [first, , last] = await failuresOf(app, 'charge:2');
    expect(first?.delayMs).toBeGreaterThanOrEqual(100);
    expect(last?.delayMs).toBeUndefined();
  });

  it('decorrelated waits are between the base and three times the last one, and grow from each other', async () => {
    const [baseMs, capMs] = [8, 400];
    const { app } = await begin([
      processorOf(
        'charges',
        { effect: 'keyed', retry: { attempts: 8, backoff: { baseMs, capMs, jitter: 'decorrelated' } } },
        refuse,
      ),
    ]);
    const keys = Array.from({ length: 12 }, (_none, index) => `charge:${index}`);
    for (const key of keys) await enqueue(app, 'charges', 'charge', {}, key);
    const waits = await Promise.all(
      keys.map(async (key) => {
        expect(await attemptsAtDeath(app, key)).toBe(8);
        return (await failuresOf(app, key)).flatMap(({ delayMs }) => delayMs ?? []);
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
    const says = (kind: FailureKind) => (error: unknown) =>
      error instanceof Error && error.message === 'declined' ? kind : undefined;
    const retry = { attempts: 2, backoff };
    const app = (
      await apps.fresh(backend, {
        queues: ['by-processor', 'by-dependency', 'by-call', 'by-nobody'],
        providers: [
          processorOf(
            'by-processor',
            { dependency: 'gateway', classify: says('transient'), retry },
            declined,
          ),
          processorOf('by-dependency', { dependency: 'gateway', retry }, declined),
          processorOf('by-call', { dependency: 'gateway', retry }, (): Promise<unknown> =>
            app
              .get(DependencyGuard)
              .call('rates', declined)
              .catch((cause: unknown) => {
                throw new Error('no rate', { cause });
              }),
          ),
          processorOf('by-nobody', { retry }, declined),
        ],
        jobs: {
          dependencies: {
            gateway: { breaker: false, retryBudget: false, classify: says('permanent') },
            rates: { breaker: false, retryBudget: false, classify: says('transient') },
          },
        },
      })
    ).app;
    const ends: Record<string, string> = {};
    for (const queue of ['by-processor', 'by-dependency', 'by-call', 'by-nobody']) {
      await enqueue(app, queue, 'job', {}, queue);
      const { status, attempts } = await settled(app, queue);
      const [failed] = await failuresOf(app, queue);
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
