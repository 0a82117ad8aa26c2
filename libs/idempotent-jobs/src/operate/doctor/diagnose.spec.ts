import { describe, expect, it } from 'vitest';
import type {
  AppDescription,
  DescribedProcessor,
  DescribedQueue,
  PlainProcessor,
  RemoveOnFail,
} from './describe-app.js';
import { diagnose } from './diagnose.js';
import type { DoctorCode, DoctorSeverity } from './doctor-report.js';

const DAY = 24 * 60 * 60 * 1000;

const charges: DescribedProcessor = {
  name: 'ChargeProcessor',
  queue: 'charges',
  effect: 'keyed',
  isEffectGiven: true,
  timeoutMs: 10_000,
  isTimeoutGiven: true,
  attempts: 5,
  clientRetries: 0,
  dependency: undefined,
  hasCircuitPerKey: false,
  urlFields: [],
  identifies: false,
  removeOnFail: undefined,
};
const mails: PlainProcessor = { name: 'MailProcessor', queue: 'mails', attempts: 1, removeOnFail: undefined };
const queue: DescribedQueue = {
  name: 'charges',
  deadLetterQueue: 'charges-dlq',
  retention: { completedMs: 7 * DAY, lettersMs: 30 * DAY, redriveWindowMs: 7 * DAY, dedupeWindowMs: DAY },
  removeOnFail: undefined,
};
const sound: AppDescription = {
  processors: [charges],
  plainProcessors: [mails],
  queues: [queue],
  dependencies: [],
  sharedKeys: [],
  resolvesTenants: true,
  unsignedUntil: undefined,
  handsOnTrace: true,
  logs: 'problems',
};

const withProcessor = (changes: Partial<DescribedProcessor>): AppDescription => ({
  ...sound,
  processors: [{ ...charges, ...changes }],
});
const withPlain = (changes: Partial<PlainProcessor>): AppDescription => ({
  ...sound,
  plainProcessors: [{ ...mails, ...changes }],
});
const withQueue = (changes: Partial<DescribedQueue>): AppDescription => ({
  ...sound,
  queues: [{ ...queue, ...changes }],
});
const retaining = (changes: Partial<DescribedQueue['retention']>): AppDescription =>
  withQueue({ retention: { ...queue.retention, ...changes } });

describe('diagnose', () => {
  it('speaks of the retries of a dependency once: with the processor that names it', () => {
    const dependencies = [
      { name: 'gateway', clientRetries: 2, isSharedByTenants: false },
      { name: 'mailer', clientRetries: 0, isSharedByTenants: false },
      { name: 'bank', clientRetries: undefined, isSharedByTenants: false },
    ];
    const { findings } = diagnose({
      ...withProcessor({ dependency: 'gateway', clientRetries: 2 }),
      dependencies,
    });
    expect(findings.map(({ code, processor }) => [code, processor])).toEqual([
      ['client-retries', 'ChargeProcessor'],
      // Nobody names it, and it does not say.
      ['client-retries-unknown', null],
    ]);
  });

  it('answers yes five times for a sound application', () => {
    const report = diagnose(sound);
    expect(report.findings).toEqual([]);
    expect(report.healthy).toBe(true);
    expect(report.answers.map(({ answer }) => answer)).toEqual(['yes', 'yes', 'yes', 'yes', 'yes']);
  });

  it.each<[string, AppDescription, DoctorCode, DoctorSeverity, number, RegExp]>([
    [
      'a plain processor on an idempotent queue',
      withPlain({ queue: 'charges' }),
      'plain-processor-on-idempotent-queue',
      'error',
      1,
      /MailProcessor has @Processor\("charges"\)/,
    ],
    [
      'two processors on one queue',
      { ...sound, processors: [charges, { ...charges, name: 'RefundProcessor' }] },
      'two-processors-on-queue',
      'error',
      1,
      /ChargeProcessor and RefundProcessor process queue "charges"/,
    ],
    [
      'a plain processor whose jobs are retried',
      withPlain({ attempts: 4 }),
      'plain-processor-retries',
      'warning',
      1,
      /MailProcessor.*up to 4 times/,
    ],
    [
      'an effect that is not declared',
      withProcessor({ effect: 'unrepeatable', isEffectGiven: false }),
      'effect-not-declared',
      'warning',
      1,
      /"unrepeatable" is assumed/,
    ],
    [
      'a client that retries what deduplicates',
      withProcessor({ clientRetries: 3 }),
      'client-retries',
      'warning',
      1,
      /5 attempts × 4 calls = up to 20 calls/,
    ],
    [
      'a client that retries what must not happen twice',
      withProcessor({ effect: 'unrepeatable', attempts: 2, clientRetries: 1 }),
      'client-retries',
      'error',
      1,
      /2 attempts × 2 calls = up to 4 calls.*must not be called twice/,
    ],
    [
      'a client that retries what handlers call',
      { ...sound, dependencies: [{ name: 'gateway', clientRetries: 2, isSharedByTenants: false }] },
      'client-retries',
      'warning',
      1,
      /"gateway".*3 calls for each guarded call, up to 15 for an operation with 5 attempts/,
    ],
    [
      'a client of which nothing is known',
      withProcessor({ clientRetries: undefined }),
      'client-retries-unknown',
      'info',
      1,
      /ChargeProcessor/,
    ],
    [
      'outcomes that are forgotten before letters may be redriven for the last time',
      retaining({ redriveWindowMs: 30 * DAY }),
      'retention-too-short',
      'error',
      2,
      /forgotten after 7 days, but dead letters may be redriven for 30 days/,
    ],
    [
      'outcomes that are forgotten before producers ask for the last time',
      retaining({ completedMs: 30_000, redriveWindowMs: 10_000, dedupeWindowMs: 60_000 }),
      'retention-too-short',
      'error',
      2,
      /forgotten after 30 s, but producers may ask again for 60 s/,
    ],
    [
      'a tenant that is read from job data where nothing resolves tenants',
      { ...withProcessor({ identifies: true }), resolvesTenants: false },
      'tenant-from-job-data',
      'warning',
      3,
      /identify, and nothing in this application resolves tenants/,
    ],
    [
      'a tenant that is read from job data',
      withProcessor({ identifies: true }),
      'tenant-from-job-data',
      'info',
      3,
      /with identify: whoever/,
    ],
    [
      'tenants that nothing resolves',
      { ...sound, resolvesTenants: false },
      'tenants-not-resolved',
      'info',
      3,
      /tenants\.resolve/,
    ],
    [
      'jobs without a signature that are run for now',
      { ...sound, unsignedUntil: '2026-05-01T00:00:00.000Z' },
      'unsigned-jobs-accepted',
      'info',
      3,
      /until 2026-05-01T00:00:00\.000Z/,
    ],
    [
      'a call to a service with the default timeout',
      withProcessor({ isTimeoutGiven: false }),
      'timeout-not-declared',
      'warning',
      4,
      /default timeout of 10000 ms/,
    ],
    [
      'a transaction with the default timeout',
      withProcessor({ effect: 'transactional', isTimeoutGiven: false }),
      'timeout-not-declared',
      'info',
      4,
      /default timeout/,
    ],
    ['no trace', { ...sound, handsOnTrace: false }, 'trace-not-handed-on', 'info', 5, /traceContext/],
    ['no logs', { ...sound, logs: 'none' }, 'logs-off', 'warning', 5, /not logged/],
    [
      'a queue that removes failed jobs',
      withQueue({ removeOnFail: true }),
      'failed-jobs-removed',
      'warning',
      5,
      /Queue "charges".*removeOnFail: true/,
    ],
    [
      'a worker that removes failed jobs',
      withProcessor({ removeOnFail: { count: 10 } }),
      'failed-jobs-removed',
      'warning',
      5,
      /ChargeProcessor.*{"count":10}/,
    ],
    [
      'a plain worker that removes failed jobs',
      withPlain({ removeOnFail: 0 }),
      'failed-jobs-removed',
      'warning',
      5,
      /MailProcessor.*removeOnFail: 0/,
    ],
  ])('finds %s', (_title, app, code, severity, question, message) => {
    const [found, ...others] = diagnose(app).findings.filter(
      // What nothing resolves is found beside what is read from job data.
      (finding) => code === 'tenants-not-resolved' || finding.code !== 'tenants-not-resolved',
    );
    expect(others).toEqual([]);
    expect(found).toMatchObject({
      code,
      severity,
      question,
      message: expect.stringMatching(message) as string,
    });
    expect(found?.fix).not.toBe('');
    const answer = { error: 'no', warning: 'unsure', info: 'yes' }[severity];
    expect(diagnose(app).answers[question - 1]?.answer).toBe(answer);
    expect(diagnose(app).healthy).toBe(severity === 'info');
  });

  it.each<[RemoveOnFail, boolean]>([
    [undefined, true],
    [false, true],
    [true, false],
    [0, false],
    [99, false],
    [100, true],
    [{ age: 86_400 }, true],
    [{ age: 60 }, false],
    [{ age: 86_400, count: 5 }, false],
    [{ count: 100 }, true],
  ])('removeOnFail %j keeps enough evidence: %j', (removeOnFail, isEnough) => {
    expect(diagnose(withQueue({ removeOnFail })).findings).toHaveLength(isEnough ? 0 : 1);
  });

  it('lists errors first, then warnings, then the rest, each in the order of the questions', () => {
    const app = {
      ...withProcessor({ effect: 'unrepeatable', isTimeoutGiven: false }),
      resolvesTenants: false,
    };
    const { findings } = diagnose({
      ...app,
      plainProcessors: [{ ...mails, queue: 'charges' }],
      handsOnTrace: false,
    });
    expect(findings.map(({ code }) => code)).toEqual([
      'plain-processor-on-idempotent-queue',
      'timeout-not-declared',
      'tenants-not-resolved',
      'trace-not-handed-on',
    ]);
  });

  it('is plain JSON', () => {
    const report = diagnose(withProcessor({ isTimeoutGiven: false, clientRetries: undefined }));
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });
});
