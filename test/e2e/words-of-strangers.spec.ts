import type { INestApplicationContext } from '@nestjs/common';
import { TransientError } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { type Classify, OperationBusyError } from 'nestjs-idempotent-jobs/errors';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
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
  const apps = useApps();

  const calls: number[] = [];
  const app = useOneApp(backend, {
    queues: ['charges'],
    providers: [
      processorOf('charges', { retry: QUICK }, (job) => {
        const { row } = job.data as { row: number };
        calls.push(row);
        throw (REFUSALS[row] as (typeof REFUSALS)[number])[1]();
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
    let calls = 0;
    const processor = processorOf('charges', { retry: QUICK }, () => {
      calls += 1;
      if (calls === 1) throw new OperationBusyError({ tenantId: 'acme', operationKey: 'refund:1' }, 5);
      return 'done';
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 2 });
  });
});

describe.each(BACKENDS)('reasons that an application has written, on %s', (backend) => {
  const apps = useApps();
  const says =
    (kind: 'transient' | 'permanent' | 'in_doubt', reason: string): Classify =>
    () => ({ kind, code: reason });

  it.each(['http_409', 'http_425', 'http_500', 'operation_busy', 'lease_expired', 'permanent_error'])(
    'a failure said to be transient for the reason "%s" is transient',
    async (reason) => {
      let calls = 0;
      const processor = processorOf('charges', { retry: QUICK, classify: says('transient', reason) }, () => {
        calls += 1;
        if (calls < 3) throw new Error('later, please');
        return 'done';
      });
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', attempts: 3 });
    },
  );

  it('a key in progress (409) is a conflict to all but keyed effects, where nobody says otherwise', async () => {
    const conflict = (): never => {
      throw answered({ status: 409 });
    };
    const processors = [
      processorOf('keyed', { effect: 'keyed', retry: QUICK }, conflict),
      processorOf('other', { retry: QUICK }, conflict),
    ];
    const { app } = await apps.fresh(backend, { queues: ['keyed', 'other'], providers: processors });
    await enqueue(app, 'keyed', 'charge', {}, 'charge:1');
    await enqueue(app, 'other', 'charge', {}, 'charge:2');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 3 });
    expect(await settled(app, 'charge:2')).toMatchObject({ status: 'dead', attempts: 1 });
  });

  it.each(['operation_busy', 'dependency_rejected', 'ledger_unavailable', 'http_503', 'timeout'])(
    'a dependency whose failures are said to be "%s" opens its circuit',
    async (reason) => {
      const breaker = { minimumCalls: 4, openMs: 60_000, maxOpenMs: 60_000 };
      const processor = processorOf(
        'charges',
        { effect: 'keyed', dependency: 'gateway', retry: { ...QUICK, attempts: 10 } },
        () => {
          throw new Error('declined');
        },
      );
      const { app } = await apps.fresh(backend, {
        queues: ['charges'],
        providers: [processor],
        jobs: {
          dependencies: { gateway: { breaker, retryBudget: false, classify: says('transient', reason) } },
        },
      });
      for (let number = 0; number < 4; number += 1)
        await enqueue(app, 'charges', 'charge', {}, `charge:${number}`);
      await eventually(
        () => app.get(DependencyGuard).stateOf('gateway'),
        (state) => expect(state.circuit).toBe('open'),
      );
    },
  );

  it('a permanent failure that is said to be "http_404" says nothing of the dependency; an answer of 404 closes its circuit', async () => {
    const refusing = { minimumCalls: 1, openMs: 200, maxOpenMs: 200, successes: 1 };
    const { app } = await apps.fresh(backend, {
      queues: [],
      jobs: {
        dependencies: {
          said: { breaker: refusing, classify: (error) => saidOf(error) },
          answered: { breaker: refusing },
        },
      },
    });
    const guard = app.get(DependencyGuard);
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
    const { app } = await apps.fresh(backend, {
      queues: [],
      jobs: { dependencies: { said: { classify: says('in_doubt', 'timeout') }, slow: {} } },
    });
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    const guard = app.get(DependencyGuard);
    const fallback = { fallbackOn: ['timeout', 'failed'], fallback: (reason: string) => reason } as const;
    expect(await guard.call('said', () => Promise.reject(new Error('x')), fallback)).toBe('failed');
    const never = (): Promise<string> => new Promise(() => undefined);
    expect(await guard.call('slow', never, { ...fallback, timeoutMs: 30 })).toBe('timeout');
    const timeouts = events.filter(({ kind }) => kind === 'dependency_timeout');
    expect(timeouts).toMatchObject([{ dependency: 'slow' }]);
  });

  it('what a guarded call found out of an error holds for the operation that it fails', async () => {
    const processor = processorOf('charges', { retry: QUICK }, () =>
      appOf()
        .get(DependencyGuard)
        .call('gateway', () => Promise.reject(answered({ status: 409 }))),
    );
    let app: INestApplicationContext | undefined;
    const appOf = (): INestApplicationContext => app as INestApplicationContext;
    ({ app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor],
      jobs: { dependencies: { gateway: {} } },
    }));
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 1 });
    expect((await outcomeOf(app, 'charge:1'))?.error?.message).toBe('declined');
  });

  it('a guarded call that a stranger calls busy is not run again by the next caller', async () => {
    const { app } = await apps.fresh(backend, { queues: [] });
    let calls = 0;
    const charge = (): Promise<unknown> =>
      asTenant(app, 'acme', () =>
        app.get(IdempotencyService).once('charge:1', () => {
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
