import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import type { Job } from 'bullmq';
import type { IdempotentJobsOptions, IdempotentProcessorOptions } from 'nestjs-idempotent-jobs';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { tap } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, deliver, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import { identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

class Money {
  constructor(readonly cents: number) {}
}
class Receipt {
  toJSON(): unknown {
    return { receipt: 'r-1' };
  }
}
const cycle: { self?: unknown } = {};
cycle.self = cycle;

describe.each(BACKENDS)('the result of an operation, on %s', (backend) => {
  const apps = useApps();

  /** Its handler returns `results[key]`. What interceptors are given is in `seen`, delivery by delivery. */
  const start = async (
    results: Readonly<Record<string, unknown>>,
    options: IdempotentProcessorOptions = {},
    jobs: IdempotentJobsOptions = {},
  ) => {
    const runs: string[] = [];
    const seen = new Map<string, unknown[]>();
    const processor = processorOf(
      'charges',
      { effect: 'keyed', identify: identifyPlain, ...options },
      (_job, { operationKey }) => {
        runs.push(operationKey);
        return results[operationKey];
      },
    );
    const witness: NestInterceptor = {
      intercept(context: ExecutionContext, next: CallHandler) {
        const [{ data }] = context.getArgs<[Job<{ key: string }>]>();
        const values = seen.get(data.key) ?? [];
        seen.set(data.key, values);
        return next.handle().pipe(tap((value) => values.push(value)));
      },
    };
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, { provide: APP_INTERCEPTOR, useValue: witness }],
      jobs,
    });
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    /** Delivers once and waits for BullMQ to have heard of it; answers with what BullMQ keeps. */
    const run = async (key: string): Promise<unknown> => {
      const job = await deliver(app, 'charges', key);
      await eventually(
        () => job.isCompleted(),
        (isCompleted) => expect(isCompleted).toBe(true),
      );
      return ((await bullQueue(app, 'charges').getJob(job.id as string)) as Job).returnvalue ?? undefined;
    };
    return { app, run, runs, seen, events };
  };

  const RETURNED: readonly [what: string, returned: unknown, given: unknown][] = [
    ['nothing', undefined, undefined],
    ['null', null, null],
    ['a text', 'done', 'done'],
    ['a number that is none', NaN, null],
    ['a date', new Date(0), '1970-01-01T00:00:00.000Z'],
    ['a property that is undefined', { id: 7, note: undefined }, { id: 7 }],
    ['an item that is undefined', [1, undefined], [1, null]],
    ['an instance', { price: new Money(5) }, { price: { cents: 5 } }],
    ['an instance with toJSON', new Receipt(), { receipt: 'r-1' }],
    ['a Map and a Set', [new Map([[1, 2]]), new Set([1])], [{}, {}]],
  ];

  it.each<Effect>(['keyed', 'transactional'])(
    'is the same for the first run, for every replay and for whoever looks it up, with effect %s',
    async (effect) => {
      const results = Object.fromEntries(RETURNED.map(([what, returned]) => [what, returned]));
      const { app, run, runs, seen } = await start(results, { effect });
      for (const [key, , given] of RETURNED) {
        const first = await run(key);
        const replayed = await run(key);
        expect(first ?? null).toStrictEqual(given ?? null);
        expect(replayed ?? null).toStrictEqual(given ?? null);
        expect(seen.get(key)).toStrictEqual([given, given]);
        const outcome = await outcomeOf(app, key);
        expect(outcome).toMatchObject({ status: 'completed', resultOmitted: undefined });
        expect(outcome?.result).toStrictEqual(given);
      }
      expect(runs).toHaveLength(RETURNED.length);
    },
  );

  it('is what a producer is given that asks again', async () => {
    const { app } = await start({ 'charge:1': null, 'charge:2': { at: new Date(0) } });
    for (const [operationKey, result] of [
      ['charge:1', null],
      ['charge:2', { at: '1970-01-01T00:00:00.000Z' }],
    ] as const) {
      const ask = () =>
        idempotentQueue(app, 'charges').enqueue('charge', {}, { operationKey, tenantId: 'acme' });
      await ask();
      await settled(app, operationKey);
      const again = await ask();
      expect(again).toMatchObject({ duplicate: true, status: 'completed' });
      expect(again.result).toStrictEqual(result);
    }
  });

  const big = 'x'.repeat(300);
  it.each<[string, unknown, IdempotentProcessorOptions, string, RegExp | undefined]>([
    ['is too large', big, {}, 'too_large', /has 302 bytes as JSON; at most 300 are kept/],
    ['is a BigInt', 5n, {}, 'not_json', /cannot be written as JSON/],
    ['is a cycle', cycle, {}, 'not_json', /cannot be written as JSON/],
    ['holds a NUL', 'a\0', {}, 'not_json', /holds a NUL/],
    ['would pass for encrypted', { $encrypted: 1 }, {}, 'not_json', /"\$encrypted"/],
    ['is not to be stored', { id: 7 }, { storeResult: false }, 'not_stored', undefined],
    [
      'cannot be redacted',
      { card: '4242' },
      {
        redact: ({ card }) => {
          throw new TypeError(card as string);
        },
      },
      'redact_failed',
      /redact\(\) threw TypeError/,
    ],
  ])(
    'is left out where it %s: the operation completes, nobody is given anything, and it says why',
    async (_what, returned, options, omitted, problem) => {
      const { app, run, runs, seen, events } = await start({ 'charge:1': returned }, options, {
        results: { maxBytes: 300 },
      });
      expect(await run('charge:1')).toBeUndefined();
      expect(await run('charge:1')).toBeUndefined();
      expect(seen.get('charge:1')).toStrictEqual([undefined, undefined]);
      expect(runs).toEqual(['charge:1']);
      expect(await outcomeOf(app, 'charge:1')).toMatchObject({
        status: 'completed',
        attempts: 1,
        failures: 0,
        result: undefined,
        resultOmitted: omitted,
      });
      const completed = events.find(({ kind }) => kind === 'completed') as JobEvent & {
        droppedResult?: string;
      };
      if (problem === undefined) expect(completed).not.toHaveProperty('droppedResult');
      else expect(completed.droppedResult).toMatch(problem);
      expect(completed.droppedResult ?? '').not.toMatch(/xxx|4242/);
    },
  );

  it('is what redact() makes of it, at the first run and later', async () => {
    const returned = { id: 7, card: '4242' };
    const { app, run, seen } = await start(
      { 'charge:1': returned },
      { redact: ({ id }: typeof returned) => ({ id }) },
    );
    for (const given of [await run('charge:1'), await run('charge:1')]) expect(given).toEqual({ id: 7 });
    expect(seen.get('charge:1')).toEqual([{ id: 7 }, { id: 7 }]);
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ result: { id: 7 }, resultOmitted: undefined });
  });

  it.each([
    `SET result_omitted = 'lost'`,
    `SET result_omitted = 'too_large'`,
    `SET status = 'dead', result = NULL, result_omitted = 'too_large'`,
  ])('is there, or says why not: a constraint refuses %s', async (change) => {
    const { app, run } = await start({ 'charge:1': 'done' });
    await run('charge:1');
    await expect(dataSourceOf(app).query(`UPDATE job_outcomes ${change}`)).rejects.toThrow(
      /violates check constraint "job_outcomes_omitted_result_is_not_there"/,
    );
  });
});
