import {
  InDoubtError,
  OutcomeService,
  PermanentError,
  Reconciliation,
  type ResolveResult,
} from 'nestjs-idempotent-jobs';
import { TenantMismatchError } from 'nestjs-idempotent-jobs/errors';
import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import type { INestApplicationContext } from '@nestjs/common';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import { Gate, processorOf, reconcilingProcessorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf } from '../support/scenario.js';

const CHARGE = { tenantId: 'acme', operationKey: 'charge:1' };
const WEBHOOK = { source: 'gateway-webhook' };
const SLOW_PLAN = { afterMs: [60_000], untilMs: 90_000 };

function lost(): never {
  throw new InDoubtError('nobody answered');
}

function resolve(
  app: INestApplicationContext,
  verdict: Parameters<OutcomeService['resolve']>[1],
): Promise<ResolveResult> {
  return app.get(OutcomeService).resolve(CHARGE, verdict, WEBHOOK);
}

function inDoubt(app: INestApplicationContext): Promise<unknown> {
  return eventually(
    () => outcomeOf(app, 'charge:1'),
    (outcome) => expect(outcome?.status).toBe('in_doubt'),
  );
}

describe.each(BACKENDS)('a webhook that knows what happened, on %s', (backend) => {
  const apps = useApps();

  it('applied while it is asked about: completed at once, and saying it again changes nothing', async () => {
    const processor = reconcilingProcessorOf(
      'charges',
      { effect: 'reconciled', reconcile: SLOW_PLAN },
      lost,
      () => Reconciliation.unknown(),
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await inDoubt(app);
    expect(await resolve(app, Reconciliation.applied({ chargeId: 'ch_1' }))).toEqual({ kind: 'resolved' });
    expect(await resolve(app, Reconciliation.applied({ chargeId: 'other' }))).toEqual({ kind: 'completed' });
    expect(await resolve(app, Reconciliation.notApplied())).toEqual({ kind: 'completed' });
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: { chargeId: 'ch_1' },
      doubtSince: undefined,
    });
    expect(await dataSourceOf(app).query('SELECT action, actor FROM job_actions')).toEqual([
      { action: 'report_applied', actor: 'gateway-webhook' },
    ]);
  });

  it('not applied while it is asked about: runs again at once, not at the next question', async () => {
    let calls = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      { effect: 'reconciled', reconcile: SLOW_PLAN },
      () => ((calls += 1) === 1 ? lost() : 'charged'),
      () => Reconciliation.unknown(),
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await inDoubt(app);
    expect(await resolve(app, Reconciliation.notApplied())).toEqual({ kind: 'resolved' });
    expect(await settled(app, 'charge:1')).toMatchObject({
      status: 'completed',
      result: 'charged',
      attempts: 2,
    });
  });

  it.each(['applied', 'not applied'])(
    '%s after its letter was written: the letter is closed',
    async (said) => {
      let calls = 0;
      const processor = processorOf('charges', {}, () => ((calls += 1) === 1 ? lost() : 'second'));
      const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
      await enqueue(app, 'charges', 'charge', {}, 'charge:1');
      await settled(app, 'charge:1');
      expect(
        await resolve(
          app,
          said === 'applied' ? Reconciliation.applied('first') : Reconciliation.notApplied(),
        ),
      ).toEqual({
        kind: 'resolved',
      });
      expect(await settled(app, 'charge:1')).toMatchObject({
        status: 'completed',
        result: said === 'applied' ? 'first' : 'second',
      });
      expect(await lettersOf(app)).toMatchObject([
        { reason: 'in_doubt', resolution: said === 'applied' ? 'applied' : 'not_applied' },
      ]);
    },
  );

  it('while the handler runs: applied completes it and the handler’s own end is not recorded; not applied waits for it', async () => {
    const gate = new Gate();
    const processor = processorOf('charges', { leaseMs: 10_000 }, async () => {
      await gate.pass();
      return 'late';
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    const kinds: string[] = [];
    app.get(JobEvents).subscribe(({ kind }) => kinds.push(kind));
    await gate.arrival;
    expect(await resolve(app, Reconciliation.notApplied())).toEqual({ kind: 'under_way' });
    expect(await resolve(app, Reconciliation.applied('by the webhook'))).toEqual({ kind: 'resolved' });
    gate.open();
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: 'by the webhook' });
    await eventually(
      () => kinds,
      (told) => expect(told).toContain('replayed'),
    );
    // No other worker had taken over.
    expect(kinds).toContain('deferred');
    expect(kinds).not.toContain('fence_rejected');
  });

  it('too early, of nobody, or against what is known, changes nothing and says so', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['charges'] });
    expect(await resolve(app, Reconciliation.applied())).toEqual({ kind: 'unknown' });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await resolve(app, Reconciliation.applied())).toEqual({ kind: 'not_started' });
    const processor = processorOf('charges', {}, () => {
      throw new PermanentError('no such account');
    });
    await apps.beside(place, { queues: ['charges'], providers: [processor] });
    await settled(app, 'charge:1');
    expect(await resolve(app, Reconciliation.notApplied())).toEqual({ kind: 'dead' });
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'dead' });
    const outcomes = app.get(OutcomeService);
    await expect(outcomes.resolve(CHARGE, Reconciliation.applied(), { source: '' })).rejects.toThrow(
      /its source/,
    );
    await expect(outcomes.resolve(CHARGE, Reconciliation.unknown() as never, WEBHOOK)).rejects.toThrow(
      /applied\(result\)/,
    );
    await expect(outcomes.resolve(CHARGE, Reconciliation.applied(1n), WEBHOOK)).rejects.toThrow(/BigInt/);
    for (const result of [{ $encrypted: 'x' }, { toJSON: () => ({ $encrypted: 'x' }) }])
      await expect(outcomes.resolve(CHARGE, Reconciliation.applied(result), WEBHOOK)).rejects.toThrow(
        /\$encrypted/,
      );
    await expect(asTenant(app, 'globex', () => resolve(app, Reconciliation.applied()))).rejects.toThrow(
      TenantMismatchError,
    );
  });
});
