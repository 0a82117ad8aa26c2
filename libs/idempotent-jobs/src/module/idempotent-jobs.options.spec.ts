import { createSecretKey } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { type IdempotentJobsOptions, resolveOptions } from './idempotent-jobs.options.js';
import { ConfigurationError } from '../operation/errors.js';
import type { Tracing } from '../tracing/tracing.js';

function refusal(options: unknown): string {
  try {
    resolveOptions(options as IdempotentJobsOptions);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationError);
    return (error as Error).message;
  }
  throw new Error('The options were accepted');
}

const TRACING: Tracing = {
  carrier: () => ({ traceparent: '00-1-2-01' }),
  detached: (work) => work(),
  span: () => Promise.reject(new Error('no span is expected here')),
};

describe('resolveOptions', () => {
  it('fills in the documented defaults', () => {
    expect(resolveOptions({})).toEqual({
      schema: undefined,
      migrations: 'check',
      partitions: undefined,
      pool: { max: 8, connection: {} },
      leaseMs: 30_000,
      retryPolicies: new Map(),
      dependencies: [],
      processors: new Map(),
      retention: {
        completedMs: 604_800_000,
        lettersMs: 2_592_000_000,
        redriveWindowMs: 604_800_000,
        dedupeWindowMs: 86_400_000,
      },
      enqueue: { maxPayloadBytes: 1_048_576 },
      results: { maxBytes: 1_048_576 },
      encryption: undefined,
      signing: undefined,
      resolveTenant: undefined,
      dispatch: { enabled: true, pollMs: 1_000, redispatchAfterMs: 900_000, redispatchMaxMs: 21_600_000 },
      sweepMs: 30_000,
      pruneMs: 3_600_000,
      editedRedrive: false,
      shutdown: { drainMs: 20_000, closeMs: 5_000 },
      logs: 'all',
      metrics: [],
      doctor: 'warn',
      traceContext: undefined,
    });
  });

  it('takes everything that is given', () => {
    const resolve = (): string => 'acme';
    const traceContext = (): object => ({});
    const adapter = { open: (): never => undefined as never };
    expect(
      resolveOptions({
        schema: 'jobs',
        migrations: 'run',
        partitions: 8,
        pool: { max: 4, connection: { host: 'postgres' } },
        leaseMs: 500,
        retention: { completedMs: 6, lettersMs: 7, redriveWindowMs: 8, dedupeWindowMs: 9 },
        deadLetters: { editedRedrive: true },
        tenants: { resolve },
        enqueue: { maxPayloadBytes: 5 },
        results: { maxBytes: 6 },
        encryption: { keys: { a: Buffer.alloc(32, 1) }, current: 'a' },
        signing: { keys: { b: Buffer.alloc(32, 2) }, current: 'b', acceptUnsignedUntil: new Date(5) },
        dispatch: { enabled: false, pollMs: 2, redispatchAfterMs: 3, redispatchMaxMs: 4 },
        recovery: { sweepMs: 5, pruneMs: 10 },
        shutdown: { drainMs: 0, closeMs: 0 },
        logs: 'none',
        metrics: [adapter],
        doctor: 'fail',
        traceContext,
        retryPolicies: { mail: { attempts: 3 } },
        processors: { charges: { concurrency: 3 } },
        dependencies: {
          mailer: { timeoutMs: 9, breaker: false, retryBudget: { ratio: 0 }, maxConcurrent: 2, maxKeys: 3 },
        },
      }),
    ).toEqual({
      schema: 'jobs',
      migrations: 'run',
      partitions: 8,
      pool: { max: 4, connection: { host: 'postgres' } },
      leaseMs: 500,
      retryPolicies: new Map([
        [
          'mail',
          {
            attempts: 3,
            timeoutMs: undefined,
            budgetMs: undefined,
            backoff: { baseMs: 1_000, capMs: 300_000 },
            crashes: 2,
          },
        ],
      ]),
      processors: new Map([['charges', { concurrency: 3 }]]),
      dependencies: [
        {
          name: 'mailer',
          timeoutMs: 9,
          maxConcurrent: 2,
          maxKeys: 3,
          clientRetries: undefined,
          classify: undefined,
          breaker: undefined,
          retryBudget: { ratio: 0 },
        },
      ],
      retention: { completedMs: 6, lettersMs: 7, redriveWindowMs: 8, dedupeWindowMs: 9 },
      enqueue: { maxPayloadBytes: 5 },
      results: { maxBytes: 6 },
      encryption: { keys: new Map([['a', createSecretKey(Buffer.alloc(32, 1))]]), current: 'a' },
      signing: {
        ring: { keys: new Map([['b', createSecretKey(Buffer.alloc(32, 2))]]), current: 'b' },
        acceptUnsignedUntil: 5,
      },
      resolveTenant: resolve,
      dispatch: { enabled: false, pollMs: 2, redispatchAfterMs: 3, redispatchMaxMs: 4 },
      sweepMs: 5,
      pruneMs: 10,
      editedRedrive: true,
      shutdown: { drainMs: 0, closeMs: 0 },
      logs: 'none',
      metrics: [adapter],
      doctor: 'fail',
      traceContext,
    });
  });

  it.each([0, 1, 65, 2.5, NaN, '8', null])('refuses %o partitions', (partitions) => {
    expect(() => resolveOptions({ partitions: partitions as number })).toThrow(
      /partitions is .*, but must be a whole number from 2 to 64, or left out for one ordinary table/,
    );
  });

  it.each([
    [{ schema: '' }, 'schema is "", but must be the name of a Postgres schema'],
    [{ pool: { max: 3 } }, 'pool.max is 3, but must be at least 4'],
    [{ schema: 7 }, 'schema is 7, but must be the name of a Postgres schema'],
    [{ migrations: 'auto' }, 'migrations is "auto", but must be "run" or "check"'],
    [
      { leaseMs: 499 },
      'leaseMs is 499, but must be a number of milliseconds from 500 to 2147483647 (24.8 days)',
    ],
    [{ retention: { completedMs: 0 } }, 'retention.completedMs is 0, but must be a number greater than 0'],
    [{ tenants: { resolve: 'acme' } }, 'tenants.resolve is "acme", but must be a function'],
    [
      { dispatch: { pollMs: 0 } },
      'dispatch.pollMs is 0, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [
      { dispatch: { redispatchAfterMs: '15m' } },
      'dispatch.redispatchAfterMs is "15m", but must be a number greater than 0',
    ],
    [
      { dispatch: { redispatchMaxMs: NaN } },
      'dispatch.redispatchMaxMs is NaN, but must be a number greater than 0',
    ],
    [
      { recovery: { sweepMs: -1 } },
      'recovery.sweepMs is -1, but must be a number of milliseconds from 1 to 2147483647 (24.8 days)',
    ],
    [
      { leaseMs: 2_147_483_648 },
      'leaseMs is 2147483648, but must be a number of milliseconds from 500 to 2147483647 (24.8 days)',
    ],
    [{ dispatch: { enabled: 'false' } }, 'dispatch.enabled is "false", but must be true or false'],
    [{ traceContext: { traceparent: 'x' } }, 'traceContext is [object Object], but must be a function'],
    [
      { tracing: { ...TRACING, span: undefined } },
      'tracing is [object Object], but must be otelTracing(), or something else with carrier, detached and span',
    ],
    [{ tracing: null }, 'tracing is null, but must be otelTracing()'],
    [
      { tracing: TRACING, traceContext: () => ({}) },
      'tracing and traceContext are both given, and tracing hands on its own context: remove traceContext',
    ],
    [
      { shutdown: { drainMs: -1 } },
      'shutdown.drainMs is -1, but must be a number of milliseconds from 0 to 2147483647 (24.8 days)',
    ],
    [
      { shutdown: { closeMs: Infinity } },
      'shutdown.closeMs is Infinity, but must be a number of milliseconds from 0 to 2147483647 (24.8 days)',
    ],
    [{ results: { maxBytes: 0 } }, 'results.maxBytes is 0, but must be a whole number greater than 0'],
    [{ doctor: 'strict' }, 'doctor is "strict", but must be "warn" or "fail" or "off"'],
    [{ metrics: { open: () => undefined } }, 'metrics must be a list of adapters'],
    [{ metrics: [{}] }, 'metrics must be a list of adapters'],
    [{ logs: 'verbose' }, 'logs is "verbose", but must be "all" or "problems" or "none"'],
  ])('refuses %o by name, value and what it must be', (options, problem) => {
    const message = refusal(options);
    expect(message).toContain(problem);
    expect(message).toMatch(/^IdempotentJobsModule\.forRoot\(\): [^;]+\.$/);
  });

  it('hands on the carrier of its tracing with what is enqueued', () => {
    const { tracing, traceContext } = resolveOptions({ tracing: TRACING });
    expect(tracing).toBe(TRACING);
    expect(traceContext?.()).toEqual({ traceparent: '00-1-2-01' });
  });

  it('tells everything that is wrong at once', () => {
    const message = refusal({ leaseMs: 1, logs: 'loud', dispatch: { pollMs: -5 }, schema: '' });
    for (const option of ['leaseMs is 1,', 'logs is "loud",', 'dispatch.pollMs is -5,', 'schema is "",']) {
      expect(message).toContain(option);
    }
    expect(message.split('; ')).toHaveLength(4);
  });
});
