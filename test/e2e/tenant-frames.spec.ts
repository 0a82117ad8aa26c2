import { AsyncLocalStorage } from 'node:async_hooks';
import { OnWorkerEvent, WorkerHost } from '@nestjs/bullmq';
import type { INestApplicationContext } from '@nestjs/common';
import type { Job } from 'bullmq';
import {
  IdempotentProcessor,
  OutcomeService,
  PermanentError,
  Reconciliation,
  TenantContext,
} from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { DependencyGuard } from 'nestjs-idempotent-jobs/dependencies';
import { DeadLetterNotFoundError, TenantMismatchError } from 'nestjs-idempotent-jobs/errors';
import { Doctor, IdempotentJobsHealthIndicator } from 'nestjs-idempotent-jobs/observe';
import { DispatchService, RetentionService } from 'nestjs-idempotent-jobs/operate';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, idempotentQueue, settled } from '../support/ledger.js';
import { Gate, processorOf } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf } from '../support/scenario.js';

const BY = { actor: 'ada', note: 'looked' };

/** What a method does inside the frame of `acme`, where there are as many things of `globex`. */
type Rule =
  /** It is done for all tenants, or asked for another one's. */
  | { readonly refused: typeof TenantMismatchError }
  /** Of another tenant's there is nothing. */
  | { readonly unknown: typeof DeadLetterNotFoundError }
  /** Only `acme`'s are seen, counted, changed. */
  | { readonly kept: unknown }
  /** It knows of no tenants, and answers as it does outside. */
  | { readonly same: true };

const REFUSED: Rule = { refused: TenantMismatchError };
const UNKNOWN: Rule = { unknown: DeadLetterNotFoundError };
const SAME: Rule = { same: true };

interface Scene {
  readonly app: INestApplicationContext;
  /** Of globex. */
  readonly letterId: string;
  /** Of all tenants. */
  readonly redriveId: string;
}
type Method = readonly [name: string, rule: Rule, call: (scene: Scene) => unknown];

const theirs = { tenantId: 'globex', operationKey: 'pending:1' };
const letters = ({ app }: Scene): DeadLetterService => app.get(DeadLetterService);
const outcomes = ({ app }: Scene): OutcomeService => app.get(OutcomeService);
const guard = ({ app }: Scene): DependencyGuard => app.get(DependencyGuard);
const health = ({ app }: Scene): IdempotentJobsHealthIndicator => app.get(IdempotentJobsHealthIndicator);
const queue = ({ app }: Scene) => idempotentQueue(app, 'parked');

/** Every public method that reads or changes what tenants have. What names a tenant names globex. */
const METHODS: readonly Method[] = [
  [
    'redispatchUnsettled()',
    { kept: { operations: 2, withoutPayload: 0 } },
    ({ app }) => app.get(DispatchService).redispatchUnsettled(),
  ],
  [
    'redispatchUnsettled() that only counts',
    { kept: { operations: 2, withoutPayload: 0 } },
    ({ app }) => app.get(DispatchService).redispatchUnsettled({ dryRun: true }),
  ],
  ['prune()', REFUSED, ({ app }) => app.get(RetentionService).prune()],
  ['prune() that only counts', REFUSED, ({ app }) => app.get(RetentionService).prune({ dryRun: true })],
  ['erase()', REFUSED, ({ app }) => app.get(RetentionService).erase({ tenantId: 'globex', ...BY })],
  ['forceOpen()', SAME, (scene) => guard(scene).forceOpen('gateway')],
  ['forceClosed()', SAME, (scene) => guard(scene).forceClosed('gateway')],
  ['unforce()', SAME, (scene) => guard(scene).resetCircuit('gateway')],
  ['stateOf()', SAME, (scene) => guard(scene).stateOf('gateway')],
  ['states', SAME, (scene) => guard(scene).states],
  ['a guarded call', SAME, (scene) => guard(scene).call('gateway', () => 'answer')],
  ['get()', REFUSED, (scene) => outcomes(scene).get(theirs)],
  ['history()', REFUSED, (scene) => outcomes(scene).history(theirs)],
  ['wait()', REFUSED, (scene) => outcomes(scene).wait(theirs, { timeoutMs: 0 })],
  [
    'settle()',
    REFUSED,
    (scene) => outcomes(scene).resolve(theirs, Reconciliation.applied(), { source: 'hook' }),
  ],
  [
    'list()',
    { kept: ['acme'] },
    async (scene) => (await letters(scene).list()).letters.map(({ tenantId }) => tenantId),
  ],
  ['list() of another tenant', REFUSED, (scene) => letters(scene).list({ tenantId: 'globex' })],
  [
    'groups()',
    { kept: [1] },
    async (scene) => (await letters(scene).groups()).map(({ letters: many }) => many),
  ],
  ['a letter', UNKNOWN, (scene) => letters(scene).get(scene.letterId)],
  ['redrive()', UNKNOWN, (scene) => letters(scene).redrive(scene.letterId, BY)],
  ['resolve()', UNKNOWN, (scene) => letters(scene).resolve(scene.letterId, Reconciliation.applied(), BY)],
  ['discard()', UNKNOWN, (scene) => letters(scene).discard(scene.letterId, BY)],
  [
    'redriveMany()',
    { kept: 1 },
    async (scene) => (await letters(scene).redriveMany({ queue: 'dying' }, { ...BY, dryRun: true })).letters,
  ],
  [
    'redriveMany() of another tenant',
    REFUSED,
    (scene) => letters(scene).redriveMany({ queue: 'dying', tenantId: 'globex' }, { ...BY, dryRun: true }),
  ],
  ['getRedrive()', UNKNOWN, (scene) => letters(scene).getRedrive(scene.redriveId)],
  ['cancelRedrive()', UNKNOWN, (scene) => letters(scene).cancelRedrive(scene.redriveId, BY)],
  ['redrives()', { kept: [] }, (scene) => letters(scene).redrives()],
  ['enqueue()', REFUSED, (scene) => queue(scene).enqueue('job', {}, theirs)],
  ['enqueueMany()', REFUSED, (scene) => queue(scene).enqueueMany([{ name: 'job', payload: {}, ...theirs }])],
  ['schedule()', REFUSED, (scene) => queue(scene).schedule('job', {}, { ...theirs, every: 1000 })],
  ['unschedule()', REFUSED, (scene) => queue(scene).unschedule(theirs)],
  ['flowJob()', REFUSED, (scene) => queue(scene).flowJob('job', {}, theirs)],
  [
    'once()',
    REFUSED,
    ({ app }) => app.get(IdempotencyService).once('call:1', () => 1, { tenantId: 'globex' }),
  ],
  ['the doctor', SAME, ({ app }) => app.get(Doctor).report()],
  ['the health of a dependency', SAME, (scene) => health(scene).dependency('gateway')],
];

async function expectedOf(rule: Rule, outside: () => unknown): Promise<object> {
  if ('refused' in rule) return { error: expect.any(rule.refused) as unknown };
  if ('unknown' in rule) return { error: expect.any(rule.unknown) as unknown };
  return { value: 'kept' in rule ? rule.kept : await outside() };
}

describe('inside the frame of a tenant', () => {
  const apps = useApps();

  /** Of each tenant two operations that wait on a queue without a worker, and a dead letter. */
  const populate = async (): Promise<Scene> => {
    const dying = processorOf('dying', { effect: 'natural' }, () => {
      throw new PermanentError('no');
    });
    const { app } = await apps.fresh(ANY_BACKEND, {
      queues: ['parked', 'dying'],
      providers: [dying],
      jobs: { dependencies: { gateway: {} } },
    });
    for (const tenantId of ['acme', 'globex']) {
      await idempotentQueue(app, 'parked').enqueueMany(
        [1, 2].map((n) => ({ name: 'job', payload: {}, tenantId, operationKey: `pending:${n}` })),
      );
      await idempotentQueue(app, 'dying').enqueue('job', {}, { tenantId, operationKey: 'dead:1' });
      await settled(app, 'dead:1', tenantId);
    }
    const service = app.get(DeadLetterService);
    const { redriveId } = await service.redriveMany({ queue: 'dying' }, BY);
    await eventually(
      () => service.getRedrive(redriveId as string),
      ({ status }) => expect(status).not.toBe('running'),
    );
    await eventually(
      () => service.list(),
      (page) => expect(page.letters).toHaveLength(2),
    );
    const [letter] = (await service.list({ tenantId: 'globex' })).letters;
    return { app, letterId: letter?.id as string, redriveId: redriveId as string };
  };

  it('every method is refused, knows nothing, or keeps to the tenant', async () => {
    const scene = await populate();
    const found: unknown[] = [];
    const expected: unknown[] = [];
    for (const [name, rule, call] of METHODS) {
      const inside = await asTenant(scene.app, 'acme', async () => call(scene)).then(
        (value: unknown) => ({ value }),
        (error: unknown) => ({ error }),
      );
      found.push({ name, ...inside });
      expected.push({ name, ...(await expectedOf(rule, () => call(scene))) });
    }
    expect(found).toEqual(expected);
  });

  it('what is done for all tenants says how to do it, and is done outside, on purpose', async () => {
    const { app } = await populate();
    const tenants = app.get(TenantContext);
    await tenants.run('acme', async () => {
      await expect(app.get(RetentionService).prune()).rejects.toThrow(/for all tenants.*"acme".*runOutside/);
      await tenants.runOutside(async () => {
        expect(tenants.current).toBeUndefined();
        expect(await app.get(RetentionService).prune()).toEqual({ operations: 0, letters: 0 });
        expect(await app.get(DispatchService).redispatchUnsettled({ queue: 'parked' })).toMatchObject({
          operations: 4,
        });
      });
      expect(tenants.current).toBe('acme');
    });
  });
});

describe.each(BACKENDS)('frames of tenants, on %s', (backend) => {
  const apps = useApps();

  it('a worker that is started, or goes on, inside of a request tells its events to nobody’s listeners', async () => {
    const seen: Record<string, unknown[]> = {};
    const contexts: { tenants?: TenantContext } = {};
    const requests = new AsyncLocalStorage<string>();
    const note = (event: string): void => {
      (seen[event] ??= []).push(contexts.tenants?.current, requests.getStore());
    };

    @IdempotentProcessor('mails', { effect: 'natural' }, { autorun: false })
    class MailProcessor extends WorkerHost {
      async process(job: Job): Promise<void> {
        await job.updateProgress(50);
        if (job.name === 'dies') throw new PermanentError('no');
      }

      @OnWorkerEvent('active') onActive(): void {
        note('active');
      }
      @OnWorkerEvent('progress') onProgress(): void {
        note('progress');
      }
      @OnWorkerEvent('completed') onCompleted(): void {
        note('completed');
      }
      @OnWorkerEvent('failed') onFailed(): void {
        note('failed');
      }
      @OnWorkerEvent('paused') onPaused(): void {
        note('paused');
      }
      @OnWorkerEvent('resumed') onResumed(): void {
        note('resumed');
      }
    }
    const { app } = await apps.fresh(backend, { queues: ['mails'], providers: [MailProcessor] });
    const tenants = app.get(TenantContext);
    contexts.tenants = tenants;
    const { worker } = app.get(MailProcessor);
    const inRequest = <T>(fn: () => T): T => requests.run('a request', () => tenants.run('acme', fn));
    const mails = idempotentQueue(app, 'mails');
    const send = async (name: string, n: number): Promise<void> => {
      await mails.enqueue(name, {}, { operationKey: `mail:${n}`, tenantId: 'globex' });
      await settled(app, `mail:${n}`, 'globex');
    };

    inRequest(() => void worker.run());
    await send('lives', 1);
    await inRequest(() => worker.pause());
    await inRequest(() => worker.resume());
    await send('lives', 2);
    await send('dies', 3);
    await eventually(
      () => Object.keys(seen).toSorted(),
      (events) => expect(events).toEqual(['active', 'completed', 'failed', 'paused', 'progress', 'resumed']),
    );
    const tenantsSeen = Object.values(seen).flatMap((pairs) => pairs.filter((_, index) => index % 2 === 0));
    expect(new Set(tenantsSeen)).toEqual(new Set([undefined]));
    // What a request carries along besides goes with none of the jobs either.
    for (const event of ['active', 'completed', 'failed']) expect(seen[event]).not.toContain('a request');
  });

  it('what a handler does at the loss of its lease, it does in its own tenant’s frame', async () => {
    const contexts: { tenants?: TenantContext } = {};
    const aborted: Record<string, unknown> = {};
    const gates = { acme: new Gate(), globex: new Gate() };
    const processor = processorOf(
      'mails',
      { effect: 'natural', leaseMs: 6000 },
      async (_job, operation, signal) => {
        const { tenantId } = operation;
        signal.addEventListener('abort', () => (aborted[tenantId] = contexts.tenants?.current));
        await gates[tenantId as keyof typeof gates].pass();
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['mails'], providers: [processor] });
    contexts.tenants = app.get(TenantContext);
    // The first lease starts the timer that all leases share.
    for (const tenantId of ['acme', 'globex'] as const) {
      await idempotentQueue(app, 'mails').enqueue('mail', {}, { operationKey: 'mail:1', tenantId });
      await gates[tenantId].arrival;
    }
    await dataSourceOf(app).query(
      `UPDATE job_outcomes SET fencing_token = fencing_token + 1 WHERE tenant_id = 'globex'`,
    );
    await eventually(
      () => aborted,
      (tenants) => expect(tenants).toEqual({ globex: 'globex' }),
    );
    for (const gate of Object.values(gates)) gate.open();
  });
});
