import { type IdempotentProcessorOptions, TransientError } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { type Classify, OperationBusyError } from 'nestjs-idempotent-jobs/errors';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it, onTestFinished } from 'vitest';
import { useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { processorOf, Scripts } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

/** As an SDK makes errors of what a service answers: every field is the service's. */
const answered = (fields: object): Error => Object.assign(new Error('declined'), fields);

/** Words by which something could be told that was refused before it was sent. */
const REFUSALS: readonly (readonly [string, () => Error])[] = [
  ['the code OPERATION_BUSY', () => answered({ code: 'OPERATION_BUSY', retryAfterMs: 5 })],
  ['the code LEDGER_UNAVAILABLE', () => answered({ code: 'LEDGER_UNAVAILABLE' })],
  ['the code DEPENDENCY_REJECTED', () => answered({ code: 'DEPENDENCY_REJECTED' })],
  ['the code OPERATION_DEAD', () => answered({ code: 'OPERATION_DEAD' })],
  ['the name UnrecoverableError', () => answered({ name: 'UnrecoverableError' })],
  [
    'the name OptimisticLockVersionMismatchError',
    () => answered({ name: 'OptimisticLockVersionMismatchError' }),
  ],
  ['the name EntityNotFoundError', () => answered({ name: 'EntityNotFoundError' })],
  ['the name TransientError', () => answered({ name: 'TransientError' })],
  ["pg-pool's words", () => new Error('timeout exceeded when trying to connect')],
  ["pg's words", () => new Error('Connection terminated due to connection timeout')],
  ["a pool's words", () => new Error('Cannot use a pool after calling end on the pool')],
  [
    "Node's words and a code of the service",
    () =>
      answered({
        code: 'card_declined',
        message: 'Client network socket disconnected before secure TLS connection was established',
      }),
  ],
  ['an event and a code of the service', () => answered({ code: 'card_declined', event: 'connect' })],
  ['a syscall and a code of the service', () => answered({ code: 'card_declined', syscall: 'connect' })],
];

describe.each(BACKENDS)('errors that a stranger has written, on %s', (backend) => {
  const calls: number[] = [];
  let refunds = 0;
  const app = useOneApp(backend, {
    queues: ['charges', 'refunds'],
    providers: [
      processorOf('charges', { retry: QUICK }, (job) => {
        const { row } = job.data as { row: number };
        calls.push(row);
        throw (REFUSALS[row] as (typeof REFUSALS)[number])[1]();
      }),
      processorOf('refunds', { retry: QUICK }, () => {
        refunds += 1;
        if (refunds === 1) throw new OperationBusyError({ tenantId: 'acme', operationKey: 'refund:1' }, 5);
        return 'done';
      }),
    ],
  });

  it.each(REFUSALS.map(([what], row) => [what, row] as const))(
    'with %s: an effect that must not be repeated is in doubt',
    async (_what, row) => {
      const key = `charge:${row}`;
      await enqueue(app(), 'charges', 'charge', { row }, key);
      expect(await settled(app(), key)).toMatchObject({ status: 'in_doubt', attempts: 1 });
      expect(calls.filter((one) => one === row)).toHaveLength(1);
      const letters = await lettersOf(app());
      expect(letters.map((letter) => letter.reason)).toEqual(calls.map(() => 'in_doubt'));
      expect(letters.filter((letter) => letter.operation_key === key)).toHaveLength(1);
    },
  );

  it('what the library itself refused is known, also where it passes through the handler', async () => {
    await enqueue(app(), 'refunds', 'refund', {}, 'refund:2');
    expect(await settled(app(), 'refund:2')).toMatchObject({ status: 'completed', attempts: 2 });
  });
});

/** Why failures are said to be transient: by the processor of a queue, or for a dependency. Both have the reason's name. */
const OF_PROCESSORS = [
  'http_409',
  'http_425',
  'http_500',
  'operation_busy',
  'lease_expired',
  'permanent_error',
];
const OF_DEPENDENCIES = [
  'operation_busy',
  'dependency_rejected',
  'ledger_unavailable',
  'http_503',
  'timeout',
];

const says =
  (kind: 'transient' | 'permanent' | 'in_doubt', reason: string): Classify =>
  () => ({ kind, code: reason });

describe.each(BACKENDS)('reasons that an application has written, on %s', (backend) => {
  const scripts = new Scripts();
  const breaker = { minimumCalls: 4, openMs: 60_000, maxOpenMs: 60_000 };
  const refusing = { minimumCalls: 1, openMs: 200, maxOpenMs: 200, successes: 1 };
  const tenfold = { effect: 'keyed', retry: { ...QUICK, attempts: 10 } } as const;
  const processors: Record<string, IdempotentProcessorOptions> = {
    keyed: { effect: 'keyed', retry: QUICK },
    other: { retry: QUICK },
    ...Object.fromEntries(
      OF_PROCESSORS.map((reason) => [
        `said-${reason}`,
        { retry: QUICK, classify: says('transient', reason) },
      ]),
    ),
    ...Object.fromEntries(
      OF_DEPENDENCIES.map((reason) => [`behind-${reason}`, { ...tenfold, dependency: reason }]),
    ),
  };
  const app = useOneApp(backend, {
    queues: Object.keys(processors),
    providers: Object.entries(processors).map(([queue, options]) =>
      processorOf(queue, options, scripts.handler),
    ),
    jobs: {
      dependencies: {
        ...Object.fromEntries(
          OF_DEPENDENCIES.map((reason) => [
            reason,
            { breaker, retryBudget: false, classify: says('transient', reason) },
          ]),
        ),
        gateway: {},
        said: { breaker: refusing, classify: (error) => saidOf(error) },
        answered: { breaker: refusing },
        'said-to-be-late': { classify: says('in_doubt', 'timeout') },
        slow: {},
      },
    },
  });

  it.each(OF_PROCESSORS)(
    'a failure said to be transient for the reason "%s" is transient',
    async (reason) => {
      let calls = 0;
      const tenant = scripts.tenantWith(() => {
        calls += 1;
        if (calls < 3) throw new Error('later, please');
        return 'done';
      });
      await enqueue(app(), `said-${reason}`, 'charge', {}, 'charge:1', tenant);
      expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'completed', attempts: 3 });
    },
  );

  it('a key in progress (409) is a conflict to all but keyed effects, where nobody says otherwise', async () => {
    const tenant = scripts.tenantWith(() => {
      throw answered({ status: 409 });
    });
    await enqueue(app(), 'keyed', 'charge', {}, 'charge:1', tenant);
    await enqueue(app(), 'other', 'charge', {}, 'charge:2', tenant);
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'dead', attempts: 3 });
    expect(await settled(app(), 'charge:2', tenant)).toMatchObject({ status: 'dead', attempts: 1 });
  });

  it.each(OF_DEPENDENCIES)(
    'a dependency whose failures are said to be "%s" opens its circuit',
    async (reason) => {
      const tenant = scripts.tenantWith(() => {
        throw new Error('declined');
      });
      for (let number = 0; number < 4; number += 1)
        await enqueue(app(), `behind-${reason}`, 'charge', {}, `charge:${number}`, tenant);
      await eventually(
        () => app().get(DependencyGuard).stateOf(reason),
        (state) => expect(state.circuit).toBe('open'),
      );
    },
  );

  it('a permanent failure that is said to be "http_404" says nothing of the dependency; an answer of 404 closes its circuit', async () => {
    const guard = app().get(DependencyGuard);
    const call = (name: string, error: Error): Promise<unknown> =>
      guard.call(name, () => Promise.reject(error)).catch((reason: unknown) => reason);
    for (const name of ['said', 'answered']) {
      await call(name, new TransientError('down'));
      await eventually(
        () => guard.stateOf(name),
        (state) =>
          expect(state).toMatchObject({ circuit: expect.not.stringMatching('closed'), retryAfterMs: 0 }),
      );
      await call(name, answered({ status: 404 }));
    }
    expect(guard.stateOf('answered').circuit).toBe('closed');
    expect(guard.stateOf('said').circuit).not.toBe('closed');
  });

  it('a call that is said to be a "timeout" is no timeout to fallbacks and metrics; one that takes too long is', async () => {
    const events: JobEvent[] = [];
    onTestFinished(
      app()
        .get(JobEvents)
        .subscribe((event) => events.push(event)),
    );
    const guard = app().get(DependencyGuard);
    const fallback = { fallbackOn: ['timeout', 'failed'], fallback: (reason: string) => reason } as const;
    const late = guard.call('said-to-be-late', () => Promise.reject(new Error('x')), fallback);
    expect(await late).toBe('failed');
    const never = (): Promise<string> => new Promise(() => undefined);
    expect(await guard.call('slow', never, { ...fallback, timeoutMs: 30 })).toBe('timeout');
    const timeouts = events.filter(({ kind }) => kind === 'dependency_timeout');
    expect(timeouts).toMatchObject([{ dependency: 'slow' }]);
  });

  it('what a guarded call found out of an error holds for the operation that it fails', async () => {
    const tenant = scripts.tenantWith(() =>
      app()
        .get(DependencyGuard)
        .call('gateway', () => Promise.reject(answered({ status: 409 }))),
    );
    await enqueue(app(), 'other', 'charge', {}, 'charge:1', tenant);
    expect(await settled(app(), 'charge:1', tenant)).toMatchObject({ status: 'dead', attempts: 1 });
    expect((await outcomeOf(app(), 'charge:1', tenant))?.error?.message).toBe('declined');
  });

  it('a guarded call that a stranger calls busy is not run again by the next caller', async () => {
    let calls = 0;
    const charge = (): Promise<unknown> =>
      asTenant(app(), 'acme', () =>
        app()
          .get(IdempotencyService)
          .once('charge:1', () => {
            calls += 1;
            throw answered({ code: 'OPERATION_BUSY' });
          }),
      ).catch((error: unknown) => error);
    await charge();
    await charge();
    expect(calls).toBe(1);
  });
});

function saidOf(error: unknown): ReturnType<Classify> {
  return error instanceof TransientError ? undefined : { kind: 'permanent', code: 'http_404' };
}
