import type { Job } from 'bullmq';
import type { Identify } from 'nestjs-idempotent-jobs';
import { Doctor, type DoctorFinding, type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { INestApplicationContext } from '@nestjs/common';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

const CONSTANT: Identify = (job) => ({ tenantId: 'acme', operationKey: job.name });
const BY_ID: Identify = (job) => ({
  tenantId: 'acme',
  operationKey: `${job.name}:${(job.id ?? '').split(':').at(-1)}`,
});
const BY_TIME: Identify = (job) => ({ tenantId: 'acme', operationKey: `${job.name}:${job.timestamp}` });

describe.each(BACKENDS)('keys of the iterations of BullMQ’s own schedulers, on %s', (backend) => {
  const apps = useApps();
  const optionsOf = (identify: Identify, warnings: string[] = []) => {
    const runs: string[] = [];
    const reports = processorOf('reports', { effect: 'keyed', identify }, (job: Job) =>
      runs.push(job.id as string),
    );
    const note = (message: string): unknown => message.includes('one operation') && warnings.push(message);
    const logger = { log: () => undefined, error: note, warn: note };
    return { runs, warnings, options: { queues: ['reports'], providers: [reports], logger } };
  };
  const findingsOf = (app: INestApplicationContext): DoctorFinding[] =>
    app
      .get(Doctor)
      .report()
      .findings.filter(({ code }) => code === 'schedule-shares-key');

  it('the same for all of them: said once, and by the doctor', async () => {
    const { runs, warnings, options } = optionsOf(CONSTANT);
    const { app } = await apps.fresh(backend, options);
    const events: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => events.push(event));
    await bullQueue(app, 'reports').upsertJobScheduler(
      'nightly',
      { every: 100 },
      { name: 'report', data: {} },
    );
    await eventually(
      () => events.filter(({ kind }) => kind === 'replayed').length,
      (replays) => expect(replays).toBeGreaterThanOrEqual(3),
    );
    expect(runs).toHaveLength(1);
    expect(warnings).toEqual([expect.stringMatching(/scheduler "nightly" on queue "reports".*job\.id/)]);
    expect(findingsOf(app)).toMatchObject([{ severity: 'warning', question: 2, queue: 'reports' }]);
  });

  it('the same for all of them: found at boot, before an iteration has run', async () => {
    const scheduling = optionsOf(CONSTANT);
    const { app, place } = await apps.fresh(backend, { queues: ['reports'] });
    await bullQueue(app, 'reports').upsertJobScheduler(
      'nightly',
      { pattern: '0 6 * * *' },
      { name: 'report' },
    );
    const worker = await apps.beside(place, scheduling.options);
    expect(findingsOf(worker)).toMatchObject([
      { queue: 'reports', message: expect.stringContaining('"nightly"') as string },
    ]);
    expect(scheduling.warnings).toHaveLength(1);
  });

  it.each([
    ['of the job’s id', BY_ID],
    ['of the time it was made', BY_TIME],
  ])('made %s: each runs, and nothing is said', async (_of, identify) => {
    const first = optionsOf(identify);
    const { app, place } = await apps.fresh(backend, first.options);
    await bullQueue(app, 'reports').upsertJobScheduler('often', { every: 100 }, { name: 'report', data: {} });
    await bullQueue(app, 'reports').upsertJobScheduler(
      'nightly',
      { pattern: '0 6 * * *' },
      { name: 'other' },
    );
    await eventually(
      () => first.runs.length,
      (count) => expect(count).toBeGreaterThanOrEqual(3),
    );
    const second = await apps.beside(place, optionsOf(identify, first.warnings).options);
    expect(findingsOf(app)).toEqual([]);
    expect(findingsOf(second)).toEqual([]);
    expect(first.warnings).toEqual([]);
  });
});
