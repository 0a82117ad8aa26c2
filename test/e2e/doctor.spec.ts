import { BullModule, Processor, WorkerHost } from '@nestjs/bullmq';
import { Logger, type INestApplicationContext, type LoggerService } from '@nestjs/common';
import { Test } from '@nestjs/testing';
import { Doctor, type DoctorReport } from 'nestjs-idempotent-jobs/observe';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { enqueue, outcomeOf } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { rootModule } from '../support/start-app.js';

interface QueueRow {
  readonly queue: string;
  readonly dead_letter_queue: string;
  readonly completed_retention_ms: number;
  readonly letter_retention_ms: number;
  readonly report: DoctorReport | null;
  readonly reported_at: Date | null;
}

const done = (): string => 'done';
const SOUND = { effect: 'natural', timeoutMs: 10_000 } as const;
const jobs = { traceContext: () => ({}), tenants: { resolve: () => 'acme' } };

function queueRows(app: INestApplicationContext): Promise<QueueRow[]> {
  return dataSourceOf(app).query<QueueRow[]>('SELECT * FROM job_queues ORDER BY queue');
}

const codesOf = (report: DoctorReport | null | undefined): string[] =>
  (report?.findings ?? []).map(({ code }) => code);

describe.each(BACKENDS)('the doctor, on %s', (backend) => {
  const apps = useApps();

  it('looks at what runs: idempotent processors, plain ones and their queues, but not at dead-letter queues', async () => {
    @Processor('mails', { autorun: false })
    class MailProcessor extends WorkerHost {
      process(): Promise<void> {
        return Promise.resolve();
      }
    }
    @Processor('charges-dlq', { autorun: false })
    class LetterProcessor extends WorkerHost {
      process(): Promise<void> {
        return Promise.resolve();
      }
    }
    const { app } = await apps.fresh(backend, {
      queues: [{ name: 'charges', bullmq: { defaultJobOptions: { attempts: 9, removeOnFail: true } } }],
      imports: [BullModule.registerQueue({ name: 'mails', defaultJobOptions: { attempts: 3 } })],
      providers: [processorOf('charges', { clientRetries: 2 }, done), MailProcessor, LetterProcessor],
    });
    const report = app.get(Doctor).report();
    expect(report.findings).toMatchObject([
      { code: 'client-retries', severity: 'error', processor: 'ScriptedProcessor', queue: 'charges' },
      { code: 'plain-processor-retries', severity: 'warning', processor: 'MailProcessor', queue: 'mails' },
      { code: 'effect-not-declared', processor: 'ScriptedProcessor' },
      { code: 'timeout-not-declared', processor: 'ScriptedProcessor' },
      { code: 'failed-jobs-removed', processor: null, queue: 'charges' },
      { code: 'tenants-not-resolved', severity: 'info' },
      { code: 'trace-not-handed-on', severity: 'info', queue: null },
    ]);
    expect(report.answers.map(({ answer }) => answer)).toEqual(['no', 'yes', 'yes', 'unsure', 'unsure']);
    // Mails are no queue of the ledger's; what is said about them stands beside the others.
    expect(await queueRows(app)).toMatchObject([{ queue: 'charges', report }]);
  });

  it('a plain processor on an idempotent queue is an error', async () => {
    @Processor('charges', { autorun: false })
    class ChargeProcessor extends WorkerHost {
      process(): Promise<void> {
        return Promise.resolve();
      }
    }
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [ChargeProcessor], jobs });
    expect(codesOf(app.get(Doctor).report())).toEqual(['plain-processor-on-idempotent-queue']);
  });

  it('notes each queue for those who look from outside; only who processes a queue speaks of it', async () => {
    const queues = [{ name: 'charges', deadLetterQueue: 'the-dead' }, 'receipts'];
    const { app, place } = await apps.fresh(backend, {
      queues,
      providers: [processorOf('charges', { ...SOUND, effect: 'keyed' }, done)],
      jobs,
    });
    const first = await queueRows(app);
    expect(first).toMatchObject([
      {
        queue: 'charges',
        dead_letter_queue: 'the-dead',
        completed_retention_ms: 7 * 24 * 60 * 60 * 1000,
        letter_retention_ms: 30 * 24 * 60 * 60 * 1000,
        report: { healthy: true, findings: [{ code: 'client-retries-unknown' }] },
        reported_at: expect.any(Date) as Date,
      },
      { queue: 'receipts', dead_letter_queue: 'receipts-dlq', report: null, reported_at: null },
    ]);

    const other = await apps.beside(place, { queues, providers: [processorOf('receipts', {}, done)], jobs });
    const [charges, receipts] = await queueRows(other);
    expect(charges).toMatchObject({ report: first[0]?.report, reported_at: first[0]?.reported_at });
    expect(codesOf(receipts?.report)).toContain('effect-not-declared');

    await apps.beside(place, {
      queues,
      providers: [processorOf('receipts', {}, done)],
      jobs: { ...jobs, doctor: 'off' },
    });
    expect(await queueRows(other)).toMatchObject([{ report: first[0]?.report }, { report: null }]);
  });

  it('many applications that boot together note their queues without getting in each other’s way', async () => {
    const place = await makePlace(backend);
    const queues = ['a', 'b', 'c', 'd'];
    await apps.beside(place, { queues });
    const orders = [queues, queues.toReversed(), ['c', 'a', 'd', 'b'], queues];
    const [app] = await Promise.all(orders.map((order) => apps.beside(place, { queues: order, jobs })));
    expect((await queueRows(app as INestApplicationContext)).map((row) => row.queue)).toEqual(queues);
  });

  it('with doctor: "fail", a boot with problems is refused with all of them, and no job runs', async () => {
    const place = await makePlace(backend);
    const calls: string[] = [];
    const processor = processorOf('charges', { ...SOUND, clientRetries: 3 }, () => calls.push('called'));
    const producer = await apps.beside(place, { queues: ['charges'], jobs });
    await enqueue(producer, 'charges', 'charge', {}, 'charge:1');
    const refused = { queues: ['charges'], providers: [processor], jobs: { ...jobs, logs: 'none' } as const };
    await expect(
      apps.beside(place, { ...refused, jobs: { ...refused.jobs, doctor: 'fail' } }),
    ).rejects.toThrow(/found 2 reasons[^]*client-retries: [^]*logs-off: /);
    expect(await outcomeOf(producer, 'charge:1')).toMatchObject({ status: 'pending' });
    expect(calls).toEqual([]);
  });

  it('can be asked without starting the application', async () => {
    const place = await makePlace(backend);
    const calls: string[] = [];
    const app = await apps.beside(place, { queues: ['charges'], jobs });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const processor = processorOf('charges', SOUND, () => calls.push('called'));
    const root = rootModule(place, { queues: ['charges'], providers: [processor], jobs: { logs: 'none' } });
    const compiled = await Test.createTestingModule({ imports: [root] }).compile();
    expect(codesOf(compiled.get(Doctor).report())).toEqual([
      'logs-off',
      'tenants-not-resolved',
      'trace-not-handed-on',
    ]);
    await compiled.close();
    expect(calls).toEqual([]);
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'pending' });
  });

  it('with doctor: "fail", a sound application starts, also one without OpenTelemetry', async () => {
    const providers = [processorOf('charges', SOUND, done)];
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers,
      jobs: { ...jobs, doctor: 'fail' },
    });
    expect(app.get(Doctor).report()).toMatchObject({ healthy: true, findings: [] });
    const plain = await apps.beside(place, { queues: ['charges'], providers, jobs: { doctor: 'fail' } });
    expect(plain.get(Doctor).report()).toMatchObject({
      healthy: true,
      answers: Array.from({ length: 5 }, () => expect.objectContaining({ answer: 'yes' }) as object),
      findings: [{ code: 'tenants-not-resolved' }, { code: 'trace-not-handed-on', severity: 'info' }],
    });
  });
});

describe('the doctor’s visit at boot', () => {
  const apps = useApps();
  afterEach(() => Logger.overrideLogger(false));

  it.each([
    ['warn', ['error client-retries', 'warn logs-off']],
    ['off', []],
  ] as const)('with doctor: "%s", each problem is one line of the log: %j', async (doctor, expected) => {
    const lines: string[] = [];
    const log =
      (level: string) =>
      (message: unknown, ...rest: unknown[]) => {
        if (rest.at(-1) === 'IdempotentJobs') lines.push(`${level} ${String(message)}`);
      };
    const logger: LoggerService = { log: log('log'), warn: log('warn'), error: log('error') };
    const place = await makePlace(ANY_BACKEND);
    const processor = processorOf(
      'charges',
      { effect: 'unrepeatable', timeoutMs: 1000, clientRetries: 1 },
      done,
    );
    await apps.beside(place, {
      queues: ['charges'],
      providers: [processor],
      jobs: { doctor, tenants: jobs.tenants, logs: 'none' },
      logger,
    });
    expect(lines.map((line) => line.split(':')[0])).toEqual(expected);
    for (const line of lines) expect(line).not.toContain('\n');
  });
});
