import { AsyncLocalStorage } from 'node:async_hooks';
import { BullModule } from '@nestjs/bullmq';
import { type AddressInfo } from 'node:net';
import {
  Controller,
  Headers,
  type INestApplication,
  type MiddlewareConsumer,
  Module,
  type NestModule,
  Post,
} from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TypeOrmModule } from '@nestjs/typeorm';
import {
  IdempotentJobsModule,
  type IdempotentQueue,
  InjectIdempotentQueue,
  PermanentError,
  TenantContext,
  TenantMiddleware,
} from 'nestjs-idempotent-jobs';
import { DispatchService } from 'nestjs-idempotent-jobs/operate';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { asTenant, bullQueue, deliver, idempotentQueue, outcomeOf, settled } from '../support/ledger.js';
import { Gate, identifyPlain, processorOf } from '../support/processors.js';
import { BACKENDS, dataSourceOf, makePlace } from '../support/scenario.js';
import { startApp } from '../support/start-app.js';

describe.each(BACKENDS)('tenants, on %s', (backend) => {
  const apps = useApps();
  const closing: INestApplication[] = [];
  afterEach(async () => {
    await Promise.all(closing.splice(0).map((app) => app.close()));
  });

  it('interleaved jobs of several tenants each see their own, before and after every await', async () => {
    const contexts: { tenants?: TenantContext } = {};
    const processor = processorOf('mails', { effect: 'natural' }, async (job, operation) => {
      const seen = [contexts.tenants?.current, operation.tenantId];
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
      seen.push(contexts.tenants?.current, (job.data as { tenant: string }).tenant);
      return seen;
    });
    const { app } = await apps.fresh(backend, { queues: ['mails'], providers: [processor] });
    contexts.tenants = app.get(TenantContext);
    const tenants = ['acme', 'globex', 'initech', 'umbrella', 'hooli'];
    const requests = Array.from({ length: 60 }, (_, index) => {
      const tenantId = tenants[index % tenants.length] as string;
      return {
        name: 'mail',
        payload: { tenant: tenantId },
        tenantId,
        operationKey: `mail:${Math.floor(index / tenants.length)}`,
      };
    });
    await idempotentQueue(app, 'mails').enqueueMany(requests);
    for (const { tenantId, operationKey } of requests) {
      const outcome = await settled(app, operationKey, tenantId);
      expect(outcome.result).toEqual([tenantId, tenantId, tenantId, tenantId]);
    }
  });

  it('many tenants with one key, all ending at one moment, each get their own end, and their own result again later', async () => {
    const tenants = Array.from({ length: 8 }, (_, index) => `tenant-${index}`);
    const fails = (tenantId: string): boolean => tenants.indexOf(tenantId) % 4 === 3;
    const { app, place } = await apps.fresh(backend, { queues: ['mails'] });
    const ask = () =>
      Promise.all(
        tenants.map((tenantId) =>
          idempotentQueue(app, 'mails').enqueue('mail', {}, { operationKey: 'mail:1', tenantId }),
        ),
      );
    await ask();
    // Tokens are unique among the attempts of an operation only: here those of all tenants are the same.
    await dataSourceOf(app).query(`UPDATE job_outcomes SET fencing_token = 4000000000000000`);
    const gates = tenants.map(() => new Gate());
    const processor = processorOf(
      'mails',
      { effect: 'natural' },
      async (_job, { tenantId, fencingToken }) => {
        await gates[tenants.indexOf(tenantId)]?.pass();
        if (fails(tenantId)) throw new PermanentError(`no mail for ${tenantId}`);
        return { tenantId, fencingToken };
      },
    );
    await apps.beside(place, { queues: ['mails'], providers: [processor] });
    await Promise.all(gates.map((gate) => gate.arrival));
    for (const gate of gates) gate.open();

    const ends = await Promise.all(tenants.map((tenantId) => settled(app, 'mail:1', tenantId)));
    expect(ends.map(({ status, result, error }) => ({ status, result, error: error?.message }))).toEqual(
      tenants.map((tenantId) =>
        fails(tenantId)
          ? { status: 'dead', result: undefined, error: `no mail for ${tenantId}` }
          : { status: 'completed', result: { tenantId, fencingToken: 4000000000000001 }, error: undefined },
      ),
    );
    const again = await ask();
    expect(again.map(({ result }) => (result as { tenantId?: string } | undefined)?.tenantId)).toEqual(
      tenants.map((tenantId) => (fails(tenantId) ? undefined : tenantId)),
    );
  });

  it('a claim leaves the operations of other tenants with the same key alone', async () => {
    const { app, place } = await apps.fresh(backend, { queues: ['mails'] });
    const key = { operationKey: 'mail:1' };
    const queue = idempotentQueue(app, 'mails');
    await queue.enqueue('mail', {}, { ...key, tenantId: 'globex' });
    const waiting = await eventually(
      () => bullQueue(app, 'mails').getJobs(['waiting']),
      (jobs) => expect(jobs).toHaveLength(1),
    );
    // Its row waits without a job.
    await waiting[0]?.remove();
    await queue.enqueue('mail', {}, { ...key, tenantId: 'acme' });
    const processor = processorOf('mails', { effect: 'natural' }, (_job, { tenantId }) => tenantId);
    await apps.beside(place, { queues: ['mails'], providers: [processor] });
    expect(await settled(app, 'mail:1', 'acme')).toMatchObject({ status: 'completed', result: 'acme' });
    expect(await outcomeOf(app, 'mail:1', 'globex')).toMatchObject({ status: 'pending', attempts: 0 });
    await app.get(DispatchService).redispatchUnsettled();
    expect(await settled(app, 'mail:1', 'globex')).toMatchObject({ attempts: 1, result: 'globex' });
  });

  it('many tenants with one key, all claimed at one moment, each run under a token of their own', async () => {
    const tenants = Array.from({ length: 40 }, (_, index) => `tenant-${index}`);
    const { app, place } = await apps.fresh(backend, { queues: ['mails'] });
    await idempotentQueue(app, 'mails').enqueueMany(
      tenants.map((tenantId) => ({ name: 'mail', payload: {}, tenantId, operationKey: 'mail:1' })),
    );
    await dataSourceOf(app).query(
      `UPDATE job_outcomes SET fencing_token = 4000000000000000 + 10 * substr(tenant_id, 8)::bigint`,
    );
    const processor = processorOf('mails', { effect: 'natural' }, (_job, { fencingToken }) => fencingToken, {
      concurrency: tenants.length,
    });
    await apps.beside(place, { queues: ['mails'], providers: [processor] });
    const ends = await Promise.all(tenants.map((tenantId) => settled(app, 'mail:1', tenantId)));
    expect(ends.map(({ result }) => result)).toEqual(
      tenants.map((_tenantId, index) => 4000000000000001 + 10 * index),
    );
    expect(ends.map(({ attempts }) => attempts)).toEqual(tenants.map(() => 1));
  });

  it('jobs of many tenants with one key replay the result of their own tenant, whoever ran first', async () => {
    const tenants = Array.from({ length: 5 }, (_, index) => `tenant-${index}`);
    const ran: string[] = [];
    const processor = processorOf(
      'mails',
      { effect: 'natural', leaseMs: 3000, identify: identifyPlain },
      (_job, { tenantId }) => {
        ran.push(tenantId);
        return tenantId;
      },
    );
    const { app } = await apps.fresh(backend, { queues: ['mails'], providers: [processor] });
    await Promise.all(
      [...tenants, ...tenants, ...tenants].map((tenant) => deliver(app, 'mails', 'mail:1', {}, tenant)),
    );
    const jobs = await eventually(
      () => bullQueue(app, 'mails').getJobs(['completed']),
      (completed) => expect(completed).toHaveLength(3 * tenants.length),
    );
    for (const job of jobs) expect(job.returnvalue).toBe((job.data as { tenant: string }).tenant);
    expect(ran.toSorted()).toEqual(tenants);
  });

  it('a job inherits no frame from whoever booted the application', async () => {
    const requests = new AsyncLocalStorage<string>();
    const contexts: { tenants?: TenantContext } = {};
    const processor = processorOf('mails', { effect: 'natural' }, () => ({
      tenant: contexts.tenants?.current,
      request: requests.getStore() ?? 'none',
    }));
    const place = await makePlace(backend);
    const app = await requests.run('a request', () =>
      startApp(place, { queues: ['mails'], providers: [processor] }),
    );
    try {
      contexts.tenants = app.get(TenantContext);
      await asTenant(app, 'globex', () =>
        idempotentQueue(app, 'mails').enqueue('mail', {}, { operationKey: 'mail:1' }),
      );
      expect(await settled(app, 'mail:1', 'globex')).toMatchObject({
        result: { tenant: 'globex', request: 'none' },
      });
    } finally {
      await app.close();
    }
  });

  it('the middleware opens the frame of the tenant that the resolver names, and refuses a malformed one', async () => {
    @Controller()
    class OrdersController {
      constructor(@InjectIdempotentQueue('charges') private readonly charges: IdempotentQueue) {}

      @Post('orders')
      async order(@Headers('idempotency-key') key: string): Promise<{ tenantId: string }> {
        const { tenantId } = await this.charges.enqueue('charge', {}, { operationKey: key });
        return { tenantId };
      }
    }
    const place = await makePlace(backend);
    @Module({
      imports: [
        TypeOrmModule.forRoot({ type: 'postgres', url: place.databaseUrl }),
        BullModule.forRoot({ connection: place.connection, prefix: place.prefix }),
        IdempotentJobsModule.forRootAsync({
          useFactory: () => ({
            migrations: 'run' as const,
            logs: 'none' as const,
            tenants: {
              resolve: (request: { headers: Record<string, string | undefined> }) =>
                request.headers['x-tenant-id'],
            },
          }),
        }),
        IdempotentJobsModule.registerQueue('charges'),
      ],
      controllers: [OrdersController],
    })
    class HttpModule implements NestModule {
      configure(consumer: MiddlewareConsumer): void {
        consumer.apply(TenantMiddleware).forRoutes('*path');
      }
    }
    const app = await NestFactory.create(HttpModule, { logger: false });
    closing.push(app);
    await app.listen(0, '127.0.0.1');
    const { port } = app.getHttpServer().address() as AddressInfo;
    const post = (headers: Record<string, string>): Promise<Response> =>
      fetch(`http://127.0.0.1:${port}/orders`, { method: 'POST', headers });
    expect(await (await post({ 'x-tenant-id': 'acme', 'idempotency-key': 'charge:1' })).json()).toEqual({
      tenantId: 'acme',
    });
    expect((await post({ 'x-tenant-id': 'x'.repeat(300), 'idempotency-key': 'charge:2' })).status).toBe(400);
    expect((await post({ 'idempotency-key': 'charge:2' })).status).toBe(500);
  });
});
