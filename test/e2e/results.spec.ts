import type { CallHandler, ExecutionContext, NestInterceptor } from '@nestjs/common';
import { APP_INTERCEPTOR } from '@nestjs/core';
import type { Job } from 'bullmq';
import type { IdempotentProcessorOptions } from 'nestjs-idempotent-jobs';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import { tap } from 'rxjs';
import { beforeAll, describe, expect, it } from 'vitest';
import { useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, deliver, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import { identifyPlain, processorOf, Scripts } from '../support/processors.js';
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

/** The queues, and what their processors do with results. */
const QUEUES = {
  kept: {},
  transactional: { effect: 'transactional' },
  'not-stored': { storeResult: false },
  redacted: { redact: ({ id }) => ({ id }) },
  'not-redacted': {
    redact: ({ card }) => {
      throw new TypeError(card as string);
    },
  },
} satisfies Record<string, IdempotentProcessorOptions>;
type QueueName = keyof typeof QUEUES;

describe.each(BACKENDS)('the result of an operation, on %s', (backend) => {
  const scripts = new Scripts();
  /** What interceptors were given, delivery by delivery. */
  const intercepted: { tenant: string; key: string; value: unknown }[] = [];
  const witness: NestInterceptor = {
    intercept(context: ExecutionContext, next: CallHandler) {
      const [{ data }] = context.getArgs<[Job<{ tenant: string; key: string }>]>();
      return next.handle().pipe(tap((value) => intercepted.push({ ...data, value })));
    },
  };
  const app = useOneApp(backend, {
    queues: Object.keys(QUEUES),
    providers: [
      ...Object.entries(QUEUES).map(([queue, options]) =>
        processorOf(queue, { effect: 'keyed', identify: identifyPlain, ...options }, scripts.handler),
      ),
      { provide: APP_INTERCEPTOR, useValue: witness },
    ],
    jobs: { results: { maxBytes: 300 } },
  });
  const events: JobEvent[] = [];
  beforeAll(
    () =>
      void app()
        .get(JobEvents)
        .subscribe((event) => events.push(event)),
  );

  /** Its handler returns `results[key]` for the operations of a tenant. */
  const start = (results: Readonly<Record<string, unknown>>, queue: QueueName = 'kept') => {
    const runs: string[] = [];
    const tenant = scripts.tenantWith((_job, { operationKey }) => {
      runs.push(operationKey);
      return results[operationKey];
    });
    /** Delivers once and waits for BullMQ to have heard of it; answers with what BullMQ keeps. */
    const run = async (key: string): Promise<unknown> => {
      const job = await deliver(app(), queue, key, {}, tenant);
      await eventually(
        () => job.isCompleted(),
        (isCompleted) => expect(isCompleted).toBe(true),
      );
      return ((await bullQueue(app(), queue).getJob(job.id as string)) as Job).returnvalue ?? undefined;
    };
    const seen = (key: string): unknown[] =>
      intercepted.filter((one) => one.tenant === tenant && one.key === key).map(({ value }) => value);
    return { tenant, run, runs, seen };
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

  it.each<[Effect, QueueName]>([
    ['keyed', 'kept'],
    ['transactional', 'transactional'],
  ])(
    'is the same for the first run, for every replay and for whoever looks it up, with effect %s',
    async (_effect, queue) => {
      const results = Object.fromEntries(RETURNED.map(([what, returned]) => [what, returned]));
      const { tenant, run, runs, seen } = start(results, queue);
      for (const [key, , given] of RETURNED) {
        const first = await run(key);
        const replayed = await run(key);
        expect(first ?? null).toStrictEqual(given ?? null);
        expect(replayed ?? null).toStrictEqual(given ?? null);
        expect(seen(key)).toStrictEqual([given, given]);
        const outcome = await outcomeOf(app(), key, tenant);
        expect(outcome).toMatchObject({ status: 'completed', resultOmitted: undefined });
        expect(outcome?.result).toStrictEqual(given);
      }
      expect(runs).toHaveLength(RETURNED.length);
    },
  );

  it('is what a producer is given that asks again', async () => {
    const { tenant } = start({ 'charge:1': null, 'charge:2': { at: new Date(0) } });
    for (const [operationKey, result] of [
      ['charge:1', null],
      ['charge:2', { at: '1970-01-01T00:00:00.000Z' }],
    ] as const) {
      const ask = () =>
        idempotentQueue(app(), 'kept').enqueue('charge', {}, { operationKey, tenantId: tenant });
      await ask();
      await settled(app(), operationKey, tenant);
      const again = await ask();
      expect(again).toMatchObject({ duplicate: true, status: 'completed' });
      expect(again.result).toStrictEqual(result);
    }
  });

  const big = 'x'.repeat(300);
  it.each<[string, unknown, QueueName, string, RegExp | undefined]>([
    ['is too large', big, 'kept', 'too_large', /has 302 bytes as JSON; at most 300 are kept/],
    ['is a BigInt', 5n, 'kept', 'not_json', /cannot be written as JSON/],
    ['is a cycle', cycle, 'kept', 'not_json', /cannot be written as JSON/],
    ['holds a NUL', 'a\0', 'kept', 'not_json', /holds a NUL/],
    ['would pass for encrypted', { $encrypted: 1 }, 'kept', 'not_json', /"\$encrypted"/],
    ['is not to be stored', { id: 7 }, 'not-stored', 'not_stored', undefined],
    ['cannot be redacted', { card: '4242' }, 'not-redacted', 'redact_failed', /redact\(\) threw TypeError/],
  ])(
    'is left out where it %s: the operation completes, nobody is given anything, and it says why',
    async (_what, returned, queue, omitted, problem) => {
      const { tenant, run, runs, seen } = start({ 'charge:1': returned }, queue);
      expect(await run('charge:1')).toBeUndefined();
      expect(await run('charge:1')).toBeUndefined();
      expect(seen('charge:1')).toStrictEqual([undefined, undefined]);
      expect(runs).toEqual(['charge:1']);
      expect(await outcomeOf(app(), 'charge:1', tenant)).toMatchObject({
        status: 'completed',
        attempts: 1,
        failures: 0,
        result: undefined,
        resultOmitted: omitted,
      });
      const completed = events.find(
        (event) => event.tenantId === tenant && event.kind === 'completed',
      ) as JobEvent & { droppedResult?: string };
      if (problem === undefined) expect(completed).not.toHaveProperty('droppedResult');
      else expect(completed.droppedResult).toMatch(problem);
      expect(completed.droppedResult ?? '').not.toMatch(/xxx|4242/);
    },
  );

  it('is what redact() makes of it, at the first run and later', async () => {
    const returned = { id: 7, card: '4242' };
    const { tenant, run, seen } = start({ 'charge:1': returned }, 'redacted');
    for (const given of [await run('charge:1'), await run('charge:1')]) expect(given).toEqual({ id: 7 });
    expect(seen('charge:1')).toEqual([{ id: 7 }, { id: 7 }]);
    expect(await outcomeOf(app(), 'charge:1', tenant)).toMatchObject({
      result: { id: 7 },
      resultOmitted: undefined,
    });
  });

  it.each([
    `SET result_omitted = 'lost'`,
    `SET result_omitted = 'too_large'`,
    `SET status = 'dead', result = NULL, result_omitted = 'too_large'`,
  ])('is there, or says why not: a constraint refuses %s', async (change) => {
    const { tenant, run } = start({ 'charge:1': 'done' });
    await run('charge:1');
    await expect(
      dataSourceOf(app()).query(`UPDATE job_outcomes ${change} WHERE tenant_id = $1`, [tenant]),
    ).rejects.toThrow(/violates check constraint "job_outcomes_omitted_result_is_not_there"/);
  });
});
