import { randomUUID } from 'node:crypto';
import { Controller, Get, Injectable, Param, type INestApplicationContext, UseGuards } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import {
  currentOperation,
  InDoubtError,
  PermanentError,
  Reconciliation,
  TenantContext,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { type CallOptions, IdempotencyService, IdempotentEffect } from 'nestjs-idempotent-jobs/calls';
import { DeadLetterService } from 'nestjs-idempotent-jobs/dead-letters';
import {
  OperationBusyError,
  OperationConflictError,
  OperationDeadError,
  OperationInDoubtError,
  TenantMissingError,
  UsageError,
} from 'nestjs-idempotent-jobs/errors';
import { type JobEvent, JobEvents } from 'nestjs-idempotent-jobs/observe';
import { RetentionService } from 'nestjs-idempotent-jobs/operate';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { useApps, useOneApp } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, enqueue, lettersOf, outcomeOf, settled } from '../support/ledger.js';
import type { Place } from '../support/place.js';
import { type TestProcess, useProcesses } from '../support/processes.js';
import { Gate, processorOf, Scripts } from '../support/processors.js';
import { ANY_BACKEND, BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { type CallerScript, LONG_LEASE_MS } from '../support/script.js';
import { rootModule } from '../support/start-app.js';

const BY = { actor: 'ada', note: 'looked' };

type Once = IdempotencyService['once'];

const onceIn =
  (app: INestApplicationContext, tenantId = 'acme'): Once =>
  (key, fn, options) =>
    asTenant(app, tenantId, () => app.get(IdempotencyService).once(key, fn, options));

/** Of calls in processes that are killed, so that others find them in seconds. */
const SHORT_LEASE_MS = 1000;

describe('guarded calls', () => {
  const apps = useApps();
  const processes = useProcesses();
  // One application for all cases without another process, each of which has a tenant of its own.
  const scripts = new Scripts();
  const shared = useOneApp(ANY_BACKEND, {
    queues: ['orders'],
    providers: [processorOf('orders', { effect: 'natural' }, scripts.handler)],
    jobs: { leaseMs: LONG_LEASE_MS },
  });
  let acme: string;
  let globex: string;
  let once: Once;
  beforeEach(() => {
    acme = `acme-${randomUUID()}`;
    globex = `globex-${randomUUID()}`;
    once = onceIn(shared(), acme);
  });

  /** An application for calls that are made in another process, too, with the table of their effects. */
  const begin = async () => {
    const { app, place } = await apps.fresh(ANY_BACKEND, {
      queues: [],
      jobs: { leaseMs: LONG_LEASE_MS, recovery: { sweepMs: 200 } },
    });
    await dataSourceOf(app).query('CREATE TABLE effects (pid integer)');
    return { app, place };
  };
  const startCaller = (script: Omit<CallerScript, 'role'>): Promise<TestProcess> =>
    processes.start({ role: 'caller', ...script });
  /** A call in a process that is killed when it has had its effect. */
  const killCaller = async (place: Place, options: CallOptions): Promise<void> => {
    const victim = await startCaller({
      place,
      key: 'refund:1',
      callers: 1,
      options,
      workMs: -1,
      leaseMs: SHORT_LEASE_MS,
    });
    victim.call();
    await victim.reached('effect');
    await victim.end();
  };

  it('run once for tenant and key, and answer every other caller with the result', async () => {
    let calls = 0;
    const refund = () => ({ refund: (calls += 1) });
    expect(await once('refund:1', refund)).toEqual({ refund: 1 });
    expect(await once('refund:1', refund)).toEqual({ refund: 1 });
    expect(await onceIn(shared(), globex)('refund:1', refund)).toEqual({ refund: 2 });
    expect(await outcomeOf(shared(), 'refund:1', acme)).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('of a hundred callers in two processes one runs it, and all get the same result', async () => {
    const { app, place } = await begin();
    const script = {
      place,
      key: 'refund:1',
      callers: 50,
      options: { waitMs: 100_000 },
      workMs: 300,
      leaseMs: LONG_LEASE_MS,
    };
    const [one, other] = await Promise.all([startCaller(script), startCaller(script)]);
    one.call();
    other.call();
    const answers = await Promise.all([one.reached('answered'), other.reached('answered')]);
    const results = answers.flatMap((answer) => answer.results ?? []);
    const rows = await dataSourceOf(app).query<{ pid: number }[]>('SELECT pid FROM effects');
    expect(rows).toHaveLength(1);
    expect(results).toHaveLength(100);
    expect(new Set(results.map((result) => JSON.stringify(result)))).toEqual(
      new Set([JSON.stringify({ by: rows[0]?.pid })]),
    );
  });

  it('a caller that will not wait longer is told when to come again', async () => {
    const gate = new Gate();
    const first = once('refund:1', () => gate.pass());
    await gate.arrival;
    const refused = await once('refund:1', () => 1, { waitMs: 100 }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(OperationBusyError);
    expect((refused as OperationBusyError).retryAfterMs).toBeGreaterThan(0);
    gate.open();
    await first;
  });

  it('what failed without an effect is run by the next caller; a permanent failure too, for nothing happened', async () => {
    const fails = [new TransientError('refused'), new PermanentError('no such account')];
    const refund = () => {
      const error = fails.shift();
      if (error !== undefined) throw error;
      return 'refunded';
    };
    await expect(once('refund:1', refund)).rejects.toThrow('refused');
    await expect(once('refund:1', refund)).rejects.toThrow('no such account');
    expect(await once('refund:1', refund)).toBe('refunded');
  });

  it('unrepeatable and in doubt: no caller runs it again, until a person has said what happened', async () => {
    let calls = 0;
    const mail = () => {
      calls += 1;
      throw new InDoubtError('nobody answered');
    };
    await expect(once('mail:1', mail)).rejects.toThrow(OperationInDoubtError);
    await expect(once('mail:1', mail)).rejects.toThrow(OperationInDoubtError);
    expect(calls).toBe(1);
    expect(await lettersOf(shared(), acme)).toMatchObject([
      { reason: 'in_doubt', queue: '(calls)', dispatch_due_at: null },
    ]);
    const letters = shared().get(DeadLetterService);
    await letters.resolve({ tenantId: acme, operationKey: 'mail:1' }, Reconciliation.applied('sent'), BY);
    expect(await once('mail:1', mail)).toBe('sent');
    await expect(once('mail:2', mail)).rejects.toThrow(OperationInDoubtError);
    await letters.resolve({ tenantId: acme, operationKey: 'mail:2' }, Reconciliation.notApplied(), BY);
    expect(await once('mail:2', () => 'sent again')).toBe('sent again');
    await expect(once('mail:3', mail)).rejects.toThrow(OperationInDoubtError);
    await letters.discard({ tenantId: acme, operationKey: 'mail:3' }, BY);
    await expect(once('mail:3', mail)).rejects.toThrow(OperationDeadError);
  });

  it('reconciled: the next caller asks first, no earlier than planned', async () => {
    let asked = 0;
    const options = {
      reconcile: () => ((asked += 1) === 1 ? Reconciliation.unknown() : Reconciliation.applied('found')),
      reconcileOptions: { afterMs: [150, 300], thenEveryMs: 300, untilMs: 100_000 },
    };
    const charge = () => {
      throw new InDoubtError('nobody answered');
    };
    const refused = await once('charge:1', charge, options).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: 'OPERATION_IN_DOUBT', retryAfterMs: expect.any(Number) });
    expect(
      await eventually(
        () => once('charge:1', charge, options).catch((error: { code: string }) => error.code),
        (answer) => expect(answer).toBe('found'),
      ),
    ).toBe('found');
    expect(asked).toBe(2);
  });

  it('transactional: writes and outcome commit together, or neither does', async () => {
    await dataSourceOf(shared()).query('CREATE TABLE stock (number integer)');
    const write = async (fails: boolean) => {
      await currentOperation().transaction.query('INSERT INTO stock VALUES (1)');
      if (fails) throw new TransientError('again');
      return 'written';
    };
    await expect(once('stock:1', () => write(true), { effect: 'transactional' })).rejects.toThrow('again');
    expect(await once('stock:1', () => write(false), { effect: 'transactional' })).toBe('written');
    expect(await dataSourceOf(shared()).query('SELECT * FROM stock')).toEqual([{ number: 1 }]);
  });

  it.each(['keyed', 'unrepeatable'] as const)('%s: its process is killed in the middle', async (effect) => {
    const { app, place } = await begin();
    await killCaller(place, { effect });
    const next = await onceIn(app)('refund:1', () => 'again', { effect }).catch((error: unknown) => error);
    if (effect === 'keyed') expect(next).toBe('again');
    else expect(next).toBeInstanceOf(OperationInDoubtError);
  });

  it('unrepeatable, killed, and nobody calls again: the doubt is found, and buried', async () => {
    const { app, place } = await begin();
    await killCaller(place, {});
    // A minute has passed since its lease ran out.
    await dataSourceOf(app).query(
      `UPDATE job_outcomes SET lease_expires_at = clock_timestamp() - interval '61 seconds'
       WHERE lease_expires_at IS NOT NULL`,
    );
    await eventually(
      () => lettersOf(app),
      (letters) => expect(letters).toMatchObject([{ reason: 'in_doubt', operation_key: 'refund:1' }]),
    );
    expect(await outcomeOf(app, 'refund:1')).toMatchObject({ status: 'in_doubt' });
  });

  it('tells of a caller that waits only when it gives up, and once', async () => {
    const told: JobEvent[] = [];
    onTestFinished(
      shared()
        .get(JobEvents)
        .subscribe((event) => {
          if (event.tenantId === acme) told.push(event);
        }),
    );
    const gate = new Gate();
    const running = once('refund:1', async () => {
      await gate.pass();
      return 'refunded';
    });
    await gate.arrival;
    await expect(once('refund:1', () => 'again', { waitMs: 500 })).rejects.toThrow(OperationBusyError);
    expect(told.slice(1)).toMatchObject([
      { kind: 'deferred', cause: 'busy', queue: '(calls)', operationKey: 'refund:1' },
    ]);
    const patient = once('refund:1', () => 'again', { waitMs: 100_000 });
    gate.open();
    expect(await Promise.all([running, patient])).toEqual(['refunded', 'refunded']);
    // Each tells of its own end; either may read its answer first.
    expect(
      told
        .slice(2)
        .map(({ kind }) => kind)
        .toSorted(),
    ).toEqual(['completed', 'replayed']);
  });

  it('the same key with another input, or of a job, is a conflict', async () => {
    await once('refund:1', () => 1, { input: { cents: 5 } });
    await expect(once('refund:1', () => 1, { input: { cents: 6 } })).rejects.toThrow(OperationConflictError);
    const tenantId = scripts.tenantWith(() => 'by the job');
    await enqueue(shared(), 'orders', 'charge', {}, 'charge:1', tenantId);
    await settled(shared(), 'charge:1', tenantId);
    await expect(onceIn(shared(), tenantId)('charge:1', () => 1)).rejects.toThrow(OperationConflictError);
  });

  it('within a job have an operation of their own, and leave the job its own', async () => {
    const tenantId = scripts.tenantWith(async (_job, { operationKey }) => {
      const inner = await shared()
        .get(IdempotencyService)
        .once('mail:1', () => currentOperation().operationKey);
      return [operationKey, inner, currentOperation().operationKey];
    });
    await enqueue(shared(), 'orders', 'order', {}, 'order:1', tenantId);
    expect(await settled(shared(), 'order:1', tenantId)).toMatchObject({
      result: ['order:1', 'mail:1', 'order:1'],
    });
  });

  it('inside of itself is refused at once, however deep, since it would wait for itself', async () => {
    const inner: unknown[] = [];
    const again = (): Promise<void> =>
      once('refund:1', () => 'never').then(
        (value) => void inner.push(value),
        (error: unknown) => void inner.push(error),
      );
    await once('refund:1', again);
    await once('refund:1', again);
    expect(inner).toEqual([expect.any(UsageError)]);
    expect(String(inner[0])).toMatch(/refund:1.*inside of itself/);

    const natural = { effect: 'natural' } as const;
    const innermost = (): Promise<number> => once('outer:1', () => 1);
    const middle = (): Promise<number> =>
      once('middle:1', ({ step }) => step('part', innermost, natural), natural);
    await expect(once('outer:1', middle, natural)).rejects.toThrow(/outer:1.*inside of itself/);

    // Another tenant's call of that key is another operation.
    const theirs = onceIn(shared(), globex);
    expect(await once('refund:2', () => theirs('refund:2', () => 7))).toBe(7);
    // What a call has left behind is not inside of it once it has ended.
    const gate = new Gate();
    let left: Promise<unknown> | undefined;
    await once('refund:3', () => {
      left = gate.pass().then(() => once('refund:3', () => 'again'));
      return 'first';
    });
    gate.open();
    expect(await left).toBe('first');
  });

  it('are forgotten with their retention, also those that failed and that nobody called again', async () => {
    await once('refund:1', () => 1);
    await once('refund:2', () => Promise.reject(new TransientError('refused'))).catch(() => undefined);
    await dataSourceOf(shared()).query(
      `UPDATE job_outcomes SET expires_at = clock_timestamp() - interval '1 s'
       WHERE expires_at IS NOT NULL AND tenant_id = $1`,
      [acme],
    );
    await shared().get(RetentionService).prune();
    const left = 'SELECT * FROM job_outcomes WHERE tenant_id = $1';
    expect(await dataSourceOf(shared()).query(left, [acme])).toEqual([]);
  });

  it('bad input is refused before anything is called', async () => {
    let calls = 0;
    const call = () => (calls += 1);
    await expect(shared().get(IdempotencyService).once('refund:1', call)).rejects.toThrow(TenantMissingError);
    await expect(once('', call)).rejects.toThrow(/operation key is empty/);
    await expect(once('refund:1', undefined as never)).rejects.toThrow(UsageError);
    await expect(once('refund:1', call, { effect: 'magic' as never })).rejects.toThrow(/effect is "magic"/);
    await expect(once('refund:1', call, { effect: 'reconciled' })).rejects.toThrow(/a reconcile function/);
    const never = { reconcile: () => Reconciliation.unknown(), reconcileOptions: { untilMs: 0 } };
    await expect(once('refund:1', call, never)).rejects.toThrow(/reconcileOptions.untilMs is 0/);
    await expect(once('refund:1', call, { timeoutMs: 0 })).rejects.toThrow(/timeoutMs is 0/);
    await expect(once('refund:1', call, { input: 1n })).rejects.toThrow(/BigInt/);
    await expect(
      once('refund:1', call, { effect: 'keyed', keyRetentionMs: 30 * 24 * 60 * 60 * 1000 }),
    ).rejects.toThrow(/retention.completedMs/);
    expect(calls).toBe(0);
    await expect(once('refund:1', () => currentOperation().job, { effect: 'natural' })).rejects.toThrow(
      /no job asked for it/,
    );
  });
});

@Injectable()
class Refunds {
  calls = 0;

  @IdempotentEffect({
    key: (orderId: string, _cents: number) => `refund:${orderId}`,
    input: (_orderId: string, cents: number) => ({ cents }),
  })
  async refund(orderId: string, cents: number): Promise<{ orderId: string; cents: number; calls: number }> {
    return { orderId, cents, calls: (this.calls += 1) };
  }
}

const guarded: string[] = [];
class Guard {
  canActivate(): boolean {
    guarded.push('asked');
    return true;
  }
}

@Controller('reports')
class ReportsController {
  constructor(private readonly refunds: Refunds) {}

  @Get(':id')
  @UseGuards(Guard)
  @IdempotentEffect({ key: (id: string) => `report:${id}`, effect: 'natural' })
  async report(@Param('id') id: string): Promise<object> {
    return { id, by: currentOperation().tenantId, calls: (this.refunds.calls += 1) };
  }
}

describe('@IdempotentEffect()', () => {
  const apps = useApps();

  it('guards a method of a provider, by the key of its arguments', async () => {
    const { app } = await apps.fresh(ANY_BACKEND, { queues: [], providers: [Refunds] });
    const refund = (cents: number) => asTenant(app, 'acme', () => app.get(Refunds).refund('order-1', cents));
    const first = await refund(5);
    expect(first).toEqual({ orderId: 'order-1', cents: 5, calls: 1 });
    expect(await refund(5)).toEqual(first);
    await expect(refund(6)).rejects.toThrow(OperationConflictError);
    await expect(new Refunds().refund('order-1', 5)).rejects.toThrow(/Nest did not create/);
  });

  it('guards an HTTP handler, whose route, parameters and guards stay', async () => {
    const place = await makePlace(ANY_BACKEND);
    const root = rootModule(place, { queues: [], providers: [Refunds] });
    const app = await NestFactory.create({ ...root, controllers: [ReportsController] }, { logger: false });
    const tenants = app.get(TenantContext);
    app.use((_request: unknown, _response: unknown, next: () => void) => tenants.run('acme', next));
    await app.listen(0, '127.0.0.1');
    try {
      const url = await app.getUrl();
      const get = async (): Promise<unknown> => (await fetch(`${url}/reports/7`)).json();
      expect(await get()).toEqual({ id: '7', by: 'acme', calls: 1 });
      expect(await get()).toEqual({ id: '7', by: 'acme', calls: 1 });
      expect(guarded).toEqual(['asked', 'asked']);
    } finally {
      await app.close();
    }
  });
});

describe.each(BACKENDS)('guarded calls in jobs, on %s', (backend) => {
  const apps = useApps();

  it('a job that is retried makes its call once', async () => {
    let calls = 0;
    const processor = processorOf(
      'orders',
      { effect: 'natural', retry: { backoff: { baseMs: 20, capMs: 20 } } },
      async (_job, { attempt }) => {
        const mail = await app.get(IdempotencyService).once('mail:1', () => (calls += 1));
        if (attempt === 1) throw new TransientError('after the mail');
        return mail;
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['orders'], providers: [processor] });
    await enqueue(app, 'orders', 'order', {}, 'order:1');
    expect(await settled(app, 'order:1')).toMatchObject({ status: 'completed', attempts: 2, result: 1 });
    expect(calls).toBe(1);
  });
});
