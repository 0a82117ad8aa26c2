import { type LoggerService, BadRequestException } from '@nestjs/common';
import { type IdempotentProcessorOptions, TransientError } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { Job } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import {
  asTenant,
  attemptKindsOf,
  bullQueue,
  enqueue,
  type LetterRow,
  lettersOf,
  outcomeOf,
  settled,
} from '../support/ledger.js';
import { identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const QUICK = { attempts: 3, backoff: { baseMs: 10, capMs: 20 } };

/** BullMQ's own clocks: a job that is left to stall comes too late for a test. */
const PATIENT = { concurrency: 1 };

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable(new Error('gone'), {});
  revoke();
  return proxy;
}

function withGetter(property: string): Error {
  return Object.defineProperty(new Error('trap'), property, {
    get() {
      throw new Error('do not touch');
    },
  });
}

function causedBy(cause: unknown): Error {
  return new Error('outer', { cause });
}

function inACircle(): Error {
  const error = new Error('ouroboros');
  error.cause = error;
  return error;
}

const message = (value: unknown): Error => Object.assign(new Error('x'), { message: value });

/** What a handler may throw, none of which Redis, Postgres or `instanceof` take well. */
const THROWN: readonly (readonly [string, () => unknown])[] = [
  ['an error whose message is an object', () => message({ statusCode: 400, error: 'Bad Request' })],
  ['an error whose message is an array', () => message(['amount must be positive', 'currency is missing'])],
  ['an error whose message is a number', () => message(42)],
  ['an error whose message is undefined', () => message(undefined)],
  ['an error with a NUL', () => new Error('said \u0000')],
  ['an error with half of a surrogate pair', () => new Error('said \ud800')],
  [
    'an error with a NUL in its name and stack',
    () => Object.assign(new Error('x'), { name: '\0', stack: 'at \0' }),
  ],
  ['an error whose stack is an object', () => Object.assign(new Error('x'), { stack: { at: 1 } })],
  ['an error without a stack', () => Object.assign(new Error('x'), { stack: undefined })],
  ['an error of a megabyte', () => new Error('m'.repeat(1_000_000))],
  ['a text', () => 'no luck'],
  ['undefined', () => undefined],
  ['null', () => null],
  ['an object without a prototype', () => Object.create(null)],
  ['an object with a status', () => ({ status: 418, code: 'TEAPOT' })],
  ['a Response', () => new Response('no', { status: 418 })],
  ['a frozen error', () => Object.freeze(new Error('frozen'))],
  ['a revoked proxy', revoked],
  ['an error caused by a revoked proxy', () => causedBy(revoked())],
  ['an error that is its own cause', inACircle],
  ...['name', 'message', 'code', 'stack', 'cause', 'status', 'errors', 'response'].map(
    (property): readonly [string, () => unknown] => [
      `an error whose ${property} throws`,
      () => withGetter(property),
    ],
  ),
];

const ROWS = THROWN.map(([what], row) => [what, row] as const);

const rowOf = (job: Job): number => (job.data as { row: number }).row;

/** Throws the value in that row. */
function throwRow(job: Job): never {
  const [, make] = THROWN[rowOf(job)] as (typeof THROWN)[number];
  throw make();
}

const TRANSIENT: IdempotentProcessorOptions = {
  effect: 'natural',
  retry: QUICK,
  classify: () => 'transient',
};

describe.each(BACKENDS)('whatever a handler throws, on %s', (backend) => {
  const apps = useApps();
  // One worker meets them all, one after the other.
  const app = useOneApp(backend, {
    queues: ['charges', 'plain', 'unrepeatable'],
    providers: [
      processorOf('charges', TRANSIENT, throwRow, PATIENT),
      processorOf('plain', { ...TRANSIENT, identify: identifyPlain }, throwRow, PATIENT),
      processorOf('unrepeatable', {}, throwRow),
    ],
  });
  const lettersAbout = async (key: string): Promise<LetterRow[]> => {
    const letters = await lettersOf(app());
    const keys = letters.map((letter) => letter.operation_key);
    // Nothing but the cases' own operations has a letter, and each has one.
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys.filter((one) => !/^(?:retried|plain|unrepeatable|called):\d+$/.test(String(one)))).toEqual(
      [],
    );
    return letters.filter((letter) => letter.operation_key === key);
  };

  it.each(ROWS)(
    '%s: its attempts come at their backoff, and the letter says that they are spent',
    async (_what, row) => {
      const key = `retried:${row}`;
      await enqueue(app(), 'charges', 'charge', { row }, key);
      expect(await settled(app(), key)).toMatchObject({ status: 'dead', attempts: 3, failures: 3 });
      expect(await lettersAbout(key)).toMatchObject([{ reason: 'retries_exhausted' }]);
      await eventually(
        async () => (await bullQueue(app(), 'charges').getFailed()).map(({ data }) => JSON.stringify(data)),
        (failed) => expect(failed.filter((data) => data.includes(`"${key}"`))).toHaveLength(1),
      );
    },
  );

  it.each(ROWS)('%s, from a plain producer that set no attempts: the same', async (_what, row) => {
    const key = `plain:${row}`;
    await bullQueue(app(), 'plain').add('charge', { tenant: 'acme', key, row });
    expect(await settled(app(), key)).toMatchObject({ status: 'dead', attempts: 3 });
    expect(await lettersAbout(key)).toMatchObject([{ reason: 'retries_exhausted' }]);
  });

  it.each(ROWS)('%s, where it must not be repeated: in doubt, with its letter', async (_what, row) => {
    const key = `unrepeatable:${row}`;
    await enqueue(app(), 'unrepeatable', 'charge', { row }, key);
    const { status } = await settled(app(), key);
    // A Response and a thrown object carry a status, which is an answer.
    expect(['in_doubt', 'dead']).toContain(status);
    expect(await lettersAbout(key)).toHaveLength(1);
    expect(await attemptKindsOf(app(), key)).toHaveLength(1);
  });

  it('what a thrown object or answer holds is kept as evidence', async () => {
    const thrown: Record<string, unknown> = {
      'charge:body': message(['amount must be positive']),
      'charge:object': { status: 418, code: 'TEAPOT', message: 'short and stout' },
      'charge:response': new Response('no', { status: 418, statusText: 'a teapot' }),
      'charge:nest': new BadRequestException({ message: ['currency is missing'], error: 'Bad Request' }),
    };
    const processor = processorOf('charges', {}, (_job, { operationKey }) => {
      throw thrown[operationKey];
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    for (const key of Object.keys(thrown)) {
      await enqueue(app, 'charges', 'charge', {}, key);
      await settled(app, key);
    }
    const letters = await lettersOf(app);
    const errorOf = (key: string): unknown => letters.find((letter) => letter.operation_key === key)?.error;
    expect(errorOf('charge:body')).toMatchObject({ message: '["amount must be positive"]' });
    expect(errorOf('charge:object')).toMatchObject({
      name: 'Object',
      message: 'short and stout',
      code: 'TEAPOT',
      status: 418,
    });
    expect(errorOf('charge:response')).toMatchObject({ name: 'Response', status: 418 });
    expect(errorOf('charge:nest')).toMatchObject({ name: 'BadRequestException', status: 400 });
  });

  it('many attempts with huge messages leave little in BullMQ, and log lines that can be read', async () => {
    const lines: string[] = [];
    const note = (line: string): number => lines.push(line);
    const logger: LoggerService = { log: note, warn: note, error: note };
    const processor = processorOf(
      'charges',
      { effect: 'natural', retry: { attempts: 30, backoff: { baseMs: 1, capMs: 1 } } },
      () => {
        throw new TransientError('m'.repeat(1_000_000));
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor], logger });
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 30 });
    const [job] = await eventually(
      () => bullQueue(app, 'charges').getFailed(),
      (jobs) => expect(jobs).toHaveLength(1),
    );
    expect(job?.failedReason.length).toBeLessThanOrEqual(2_000);
    expect(JSON.stringify(job?.stacktrace).length).toBeLessThan(100_000);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(10_000);
    expect(Math.max(...events.map((event) => JSON.stringify(event).length))).toBeLessThan(10_000);
    expect(lines.length).toBeGreaterThan(0);
  });

  it('what BullMQ keeps of an error never reads like its own words', async () => {
    const words = [
      'job stalled more than allowable limit',
      'child bull:x:1 failed',
      'bullmq:rateLimitExceeded',
    ];
    const processor = processorOf('charges', {}, (job) => {
      throw new Error(words[(job.data as { n: number }).n]);
    });
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor],
      jobs: { recovery: { sweepMs: 100 } },
    });
    for (const n of words.keys()) await enqueue(app, 'charges', 'charge', { n }, `charge:${n}`);
    const jobs = await eventually(
      () => bullQueue(app, 'charges').getFailed(),
      (failed) => expect(failed).toHaveLength(3),
    );
    for (const { failedReason } of jobs) {
      expect(words).not.toContain(failedReason);
      expect(words.some((word) => failedReason.includes(word))).toBe(true);
    }
    expect((await lettersOf(app)).map(({ reason }) => reason)).toEqual(['in_doubt', 'in_doubt', 'in_doubt']);
  });

  it.each(ROWS)('%s, from a guarded call: recorded, never left running', async (_what, row) => {
    const key = `called:${row}`;
    const once = app().get(IdempotencyService);
    await asTenant(app(), 'acme', () => once.once(key, () => throwRow({ data: { row } } as Job))).catch(
      () => undefined,
    );
    expect((await outcomeOf(app(), key))?.status).not.toBe('running');
    expect(await attemptKindsOf(app(), key)).toHaveLength(1);
  });
});
