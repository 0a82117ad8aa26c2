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
  TenantContext,
  TenantMiddleware,
} from 'nestjs-idempotent-jobs';
import { afterEach, describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { asTenant, idempotentQueue, settled } from '../support/ledger.js';
import { processorOf } from '../support/processors.js';
import { BACKENDS, makePlace } from '../support/scenario.js';
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
