import { InDoubtError, OutcomeService, PermanentError, Reconciliation } from 'nestjs-idempotent-jobs';
import { IdempotencyService } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import type { INestApplicationContext } from '@nestjs/common';
import { IsInt } from 'class-validator';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, enqueue, lettersOf, outcomeOf, settled, stepOf } from '../support/ledger.js';
import { Gate, processorOf, reconcilingProcessorOf } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf } from '../support/scenario.js';
import { useSessions } from '../support/sessions.js';

const BY = { actor: 'ada', note: 'looked' };
const PLAN = { afterMs: [100, 300], thenEveryMs: 400, untilMs: 100_000 };
const SWEPT = { recovery: { sweepMs: 200 } };

function lost(): never {
  throw new InDoubtError('nobody answered');
}

function onceIn(app: INestApplicationContext): IdempotencyService['once'] {
  return (key, fn, options) =>
    asTenant(app, 'acme', () => app.get(IdempotencyService).once(key, fn, options));
}

describe.each(BACKENDS)('doubts that are not lost on the way, on %s', (backend) => {
  const apps = useApps();

  it('a webhook that comes twice has no say about an attempt that was started after it', async () => {
    let effects = 0;
    const processor = processorOf('charges', {}, () => {
      effects += 1;
      return lost();
    });
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    const operation = { tenantId: 'acme', operationKey: 'charge:1' };
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    const webhook = { source: 'gateway-webhook', asOf: new Date() };
    const outcomes = app.get(OutcomeService);
    expect(await outcomes.resolve(operation, Reconciliation.notApplied(), webhook)).toEqual({
      kind: 'resolved',
    });
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toHaveLength(2),
    );
    expect(await outcomes.resolve(operation, Reconciliation.notApplied(), webhook)).toEqual({
      kind: 'outdated',
    });
    expect(await outcomeOf(app, 'charge:1')).toMatchObject({ status: 'in_doubt' });
    expect(effects).toBe(2);
  });

  it('a reconciled operation that was given up is looked up before a redrive runs it again', async () => {
    let calls = 0;
    const processor = reconcilingProcessorOf(
      'charges',
      { effect: 'reconciled', reconcile: PLAN },
      () => {
        calls += 1;
        throw new PermanentError('the second service refused');
      },
      () => Reconciliation.applied('found'),
    );
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead' });
    await app.get(DeadLetterService).redrive({ tenantId: 'acme', operationKey: 'charge:1' }, BY);
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed', result: 'found' });
    expect(calls).toBe(1);
  });

  it('an attempt that vanished as keyed is looked up by a deployment that is reconciled', async () => {
    const gate = new Gate();
    const keyed = processorOf('charges', { effect: 'keyed' }, () => gate.pass());
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers: [keyed] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await gate.arrival;
    // As a crash leaves it: another worker's, its lease over.
    await dataSourceOf(app).query(
      `UPDATE job_outcomes SET run_id = 'gone', fencing_token = fencing_token + 1, lease_expires_at = clock_timestamp(), dispatch_due_at = clock_timestamp()`,
    );
    gate.open();
    await apps.close(app);
    let calls = 0;
    const reconciled = reconcilingProcessorOf(
      'charges',
      { effect: 'reconciled', reconcile: PLAN },
      () => (calls += 1),
      () => Reconciliation.applied('found'),
    );
    const later = await apps.beside(place, { queues: ['charges'], providers: [reconciled] });
    expect(await settled(later, 'charge:1')).toMatchObject({ status: 'completed', result: 'found' });
    expect(calls).toBe(0);
  });

  it('a payload that a new deployment refuses does not end the questions', async () => {
    class StrictPayload {
      @IsInt()
      cents!: number;
    }
    const options = { effect: 'reconciled', reconcile: { ...PLAN, untilMs: 3000 } } as const;
    const first = reconcilingProcessorOf('charges', options, lost, () => Reconciliation.unknown());
    const { app, place } = await apps.fresh(backend, { queues: ['charges'], providers: [first] });
    await enqueue(app, 'charges', 'charge', { cents: 'five' }, 'charge:1');
    await eventually(
      () => outcomeOf(app, 'charge:1'),
      (outcome) => expect(outcome?.status).toBe('in_doubt'),
    );
    await apps.close(app);
    const strict = reconcilingProcessorOf('charges', { ...options, payload: StrictPayload }, lost, () =>
      Reconciliation.unknown(),
    );
    const later = await apps.beside(place, { queues: ['charges'], providers: [strict] });
    expect(await settled(later, 'charge:1')).toMatchObject({ status: 'in_doubt' });
    expect(await lettersOf(later)).toMatchObject([{ reason: 'in_doubt' }]);
  });

  it('a nested step that was resolved lets its operation go on at once', async () => {
    const processor = processorOf('orders', { effect: 'natural' }, (_job, { step }) =>
      step('outer', ({ step: inner }) => inner('mail', lost), { effect: 'natural' }),
    );
    const { app } = await apps.fresh(backend, { queues: ['orders'], providers: [processor] });
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ step_of: 'order:1', step: 'outer/mail' }]),
    );
    const mail = { tenantId: 'acme', operationKey: 'order:1', step: 'outer/mail' };
    await app.get(DeadLetterService).resolve(mail, Reconciliation.applied('sent'), BY);
    expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed', result: 'sent' });
  });

  it('a step that is settled while its transactional handler runs waits for nobody', async () => {
    const gate = new Gate();
    const processor = processorOf('orders', { effect: 'transactional' }, async (_job, { step }) => {
      const mail = await step('mail', lost).catch(() => undefined);
      await gate.pass();
      return mail;
    });
    const { app } = await apps.fresh(backend, { queues: ['orders'], providers: [processor] });
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    await gate.arrival;
    const mail = { tenantId: 'acme', operationKey: 'order:1', step: 'mail' };
    expect(
      await app.get(OutcomeService).resolve(mail, Reconciliation.applied('sent'), { source: 'mailbox' }),
    ).toEqual({
      kind: 'resolved',
    });
    // Its handler is still at it: nobody has waited for that.
    gate.open();
    expect(await stepOf(app, 'order:1', 'mail')).toMatchObject({ status: 'completed', result: 'sent' });
  });
});

describe('doubts of guarded calls', () => {
  const apps = useApps();
  const sessions = useSessions();

  it('keyed: once the service has forgotten the key it is a doubt, with a letter, and is not pruned', async () => {
    const { app } = await apps.fresh(ANY_BACKEND, { queues: [], jobs: SWEPT });
    const once = onceIn(app);
    const options = { effect: 'keyed', keyRetentionMs: 1000 } as const;
    await expect(once('refund:1', lost, options)).rejects.toThrow('nobody answered');
    expect(await dataSourceOf(app).query('SELECT expires_at FROM job_outcomes')).toEqual([
      { expires_at: null },
    ]);
    await eventually(
      () =>
        dataSourceOf(app).query('SELECT repeatable_until < clock_timestamp() AS is_over FROM job_outcomes'),
      (rows) => expect(rows).toEqual([{ is_over: true }]),
    );
    await expect(once('refund:1', () => 1, options)).rejects.toMatchObject({ code: 'OPERATION_IN_DOUBT' });
    expect(await lettersOf(app)).toMatchObject([{ reason: 'in_doubt', queue: '(calls)' }]);
    await app.get(RetentionService).prune();
    // A person, and then the next caller.
    await app
      .get(DeadLetterService)
      .resolve({ tenantId: 'acme', operationKey: 'refund:1' }, Reconciliation.notApplied(), BY);
    expect(
      await dataSourceOf(app).query('SELECT status, dispatch_due_at, payload FROM job_outcomes'),
    ).toEqual([{ status: 'pending', dispatch_due_at: null, payload: null }]);
    expect(await once('refund:1', () => 'refunded', options)).toBe('refunded');
  });

  it('one whose row somebody holds keeps no other from being found', async () => {
    const { app, place } = await apps.fresh(ANY_BACKEND, { queues: [], jobs: SWEPT });
    const told: JobEvent[] = [];
    app.get(JobEvents).subscribe((event) => told.push(event));
    const forgotten = (tenant: string): string => `
      INSERT INTO job_outcomes (tenant_id, operation_key, origin, queue, job_name, job_id, fingerprint, status, effect, attempts,
        fencing_token, run_id, started_at, lease_expires_at, repeatable_until)
      VALUES ('${tenant}', 'refund:1', 'call', '(calls)', 'call', '', repeat('0', 64), 'running', 'unrepeatable', 1,
        1, 'gone', clock_timestamp() - interval '3 h', clock_timestamp() - interval '2 h', clock_timestamp() - interval '1 h')`;
    const colleague = await sessions.open(place);
    await colleague.query(`BEGIN; ${forgotten('acme')}; COMMIT; BEGIN; SELECT FROM job_outcomes FOR UPDATE`);
    await dataSourceOf(app).query(forgotten('globex'));
    await eventually(
      () => outcomeOf(app, 'refund:1', 'globex'),
      (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt' }),
    );
    await colleague.query('COMMIT');
    await eventually(
      () => outcomeOf(app, 'refund:1', 'acme'),
      (outcome) => expect(outcome).toMatchObject({ status: 'in_doubt' }),
    );
    // An event comes after its row.
    await eventually(
      () => told,
      (events) =>
        expect(events).toMatchObject([
          { kind: 'in_doubt', tenantId: 'globex', operationKey: 'refund:1', attempt: 1, isVanished: true },
          { kind: 'in_doubt', tenantId: 'acme' },
        ]),
    );
  });

  it('one that was found by the sweep can be answered as not applied', async () => {
    const { app } = await apps.fresh(ANY_BACKEND, { queues: [], jobs: SWEPT });
    const once = onceIn(app);
    const gate = new Gate();
    const first = once('mail:1', async () => {
      await gate.pass();
      return 'by the first caller';
    });
    await gate.arrival;
    await dataSourceOf(app).query(
      `UPDATE job_outcomes SET run_id = 'gone', fencing_token = fencing_token + 1, lease_expires_at = clock_timestamp() - interval '2 minutes'`,
    );
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toHaveLength(1),
    );
    const mail = { tenantId: 'acme', operationKey: 'mail:1' };
    expect(
      await app.get(OutcomeService).resolve(mail, Reconciliation.notApplied(), { source: 'mailbox' }),
    ).toEqual({
      kind: 'resolved',
    });
    gate.open();
    // What it did under its lost lease does not count; it is still there, and the first to call again.
    expect(await first).toBe('by the first caller');
    expect(await outcomeOf(app, 'mail:1')).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('a transactional call inside of a transactional one is refused, at any depth', async () => {
    const { app } = await apps.fresh(ANY_BACKEND, { queues: [], jobs: SWEPT });
    const once = onceIn(app);
    const inner = () => once('inner', () => 1, { effect: 'transactional' });
    const natural = () => once('natural', inner, { effect: 'natural' });
    await expect(once('outer', natural, { effect: 'transactional' })).rejects.toThrow(
      /inside of a transactional/,
    );
  });

  it('a call that runs when the application closes may finish', async () => {
    const { app } = await apps.fresh(ANY_BACKEND, { queues: [], jobs: SWEPT });
    const gate = new Gate();
    const call = onceIn(app)('mail:1', async () => {
      await gate.pass();
      return 'sent';
    });
    await gate.arrival;
    const closing = apps.close(app);
    setTimeout(gate.open, 300);
    expect(await call).toBe('sent');
    await closing;
  });
});
