import type { INestApplicationContext } from '@nestjs/common';
import { startPostgres, type LocalPostgres } from 'local-servers';
import { startSimulator, type RunningSimulator } from 'simulator';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { boot } from './boot.js';
import { stockUp } from './inventory/stock.js';
import type { OrderProgress } from './orders/order-progress.service.js';
import { settingsFrom } from './settings.js';

const TEAPOTS = { sku: 'teapot', quantity: 2, customerEmail: 'ada@acme.test' };

let postgres: LocalPostgres;
let simulator: RunningSimulator;
let app: INestApplicationContext;
let url: string;

beforeAll(async () => {
  [postgres, simulator] = await Promise.all([startPostgres(), startSimulator()]);
  const settings = settingsFrom({
    DATABASE_URL: await postgres.createDatabase('shop'),
    GATEWAY_URL: simulator.http,
    SMTP_URL: simulator.smtp,
    LOGS: 'none',
  });
  const shop = await boot(settings, 0);
  app = shop.app;
  url = shop.url!;
  const shelf = { sku: 'teapot', unitPriceCents: 1999, currency: 'EUR', available: 10 };
  await stockUp(app.get(DataSource).manager, 'acme', [shelf]);
}, 60_000);

afterAll(async () => {
  await app?.close();
  await simulator?.stop();
  await postgres?.stop();
}, 60_000);

describe('the shop', () => {
  it('reserves, charges and mails an order once, however often it is placed', async () => {
    const first = await place('acme', 'order-1', TEAPOTS);
    const again = await place('acme', 'order-1', TEAPOTS);

    expect(first.status).toBe(201);
    expect(first.body).toMatchObject({ id: 'order-1', amountCents: 3998, currency: 'EUR' });
    expect(again).toEqual({ status: 200, body: first.body });
    const { charge } = await operationsAtRest('acme', 'order-1');
    expect(charge).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: { chargeId: expect.any(String) },
    });
    const arrivals = (await simulator.client.ledger()).filter(({ key }) => key !== null);
    expect(
      arrivals.map(({ service, tenant, claimedTenant, attempt }) => [
        service,
        tenant,
        claimedTenant,
        attempt,
      ]),
    ).toEqual([
      ['charge', 'acme', 'acme', 1],
      ['mail', 'acme', 'acme', 1],
    ]);
    expect(arrivals[1]?.mail).toMatchObject({
      to: 'ada@acme.test',
      messageId: expect.stringMatching(/^<[\w-]{43}@acme\.test>$/),
    });
  });

  it('puts a mail whose answer was lost in doubt, and never sends it twice', async () => {
    await simulator.client.script({ service: 'mail', steps: ['answer_lost'] });
    await place('acme', 'order-2', TEAPOTS);

    const { receipt } = await operationsAtRest('acme', 'order-2');

    expect(receipt).toMatchObject({ status: 'in_doubt', attempts: 1 });
    const mails = await simulator.client.mailbox('default', { to: 'ada@acme.test' });
    expect(mails.filter(({ subject }) => subject.endsWith('order-2'))).toHaveLength(1);
    const health = await fetch(`${url}/health`);
    expect(health.status).toBe(200);
    expect(await health.json()).toMatchObject({ details: { receipts: { status: 'degraded', inDoubt: 1 } } });
  });

  it('refuses the key of another order, an order of another tenant, and a request of none', async () => {
    await place('acme', 'order-3', TEAPOTS);

    expect((await place('acme', 'order-3', { ...TEAPOTS, quantity: 3 })).status).toBe(409);
    expect((await place('globex', 'order-4', TEAPOTS)).status).toBe(422);
    expect((await find('globex', 'order-3')).status).toBe(404);
    expect((await fetch(`${url}/orders/order-3`)).status).toBe(400);
    expect((await place('acme', 'order-5', { ...TEAPOTS, quantity: 0 })).status).toBe(400);
  });

  it('gives an order up that the stock cannot serve, and charges nothing', async () => {
    await place('acme', 'order-6', { ...TEAPOTS, quantity: 100 });

    const { reserve, charge } = await operationsAtRest('acme', 'order-6');

    expect(reserve).toMatchObject({ status: 'dead', error: { message: expect.stringContaining('stock') } });
    expect(charge).toEqual({ status: 'awaited' });
  });
});

async function place(tenant: string, key: string, body: object): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${url}/orders`, {
    method: 'POST',
    headers: { 'x-tenant-id': tenant, 'idempotency-key': key, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

function find(tenant: string, id: string): Promise<Response> {
  return fetch(`${url}/orders/${id}`, { headers: { 'x-tenant-id': tenant } });
}

/** Waits until no step of the order is on its way. */
async function operationsAtRest(tenant: string, id: string): Promise<OrderProgress> {
  for (const deadline = Date.now() + 10_000; ;) {
    const { operations } = (await (await find(tenant, id)).json()) as { operations: OrderProgress };
    const steps = Object.values(operations) as OrderProgress['reserve'][];
    const last = steps.findLast(({ status }) => status !== 'awaited');
    const isAtRest = last === operations.receipt ? isOver(last) : last?.status === 'dead';
    if (isAtRest) return operations;
    if (Date.now() > deadline)
      throw new Error(`Order ${id} does not come to rest: ${JSON.stringify(operations)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function isOver({ status }: OrderProgress['reserve']): boolean {
  return status === 'completed' || status === 'dead' || status === 'in_doubt';
}
