import { type LocalPostgres, startPostgres } from 'local-servers';
import { getIdempotentQueueToken, type IdempotentQueue, OutcomeService } from 'nestjs-idempotent-jobs';
import { DataSource } from 'typeorm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chargeKeyOf } from './charges/charge.jobs.js';
import { INVENTORY, type InventoryJobs, reserveKeyOf, shipKeyOf } from './inventory/inventory.jobs.js';
import { RunningShop, TEAPOTS } from '../test/running-shop.js';

let postgres: LocalPostgres;
let shop: RunningShop;

beforeAll(async () => {
  postgres = await startPostgres();
  shop = await RunningShop.open(postgres, 'shop');
}, 60_000);

afterAll(async () => {
  await shop?.close();
  await postgres?.stop();
}, 60_000);

describe('the shop', () => {
  it('reserves, charges and mails an order once, however often it is placed', async () => {
    const first = await shop.place('acme', 'order-1', TEAPOTS);
    const again = await shop.place('acme', 'order-1', TEAPOTS);

    expect(first.status).toBe(201);
    expect(first.body).toMatchObject({ id: 'order-1', amountCents: 3998, currency: 'EUR' });
    expect(again).toEqual({ status: 200, body: first.body });
    const { charge, ship } = await shop.operationsAtRest('acme', 'order-1');
    expect(charge).toMatchObject({
      status: 'completed',
      attempts: 1,
      result: { chargeId: expect.any(String) },
    });
    expect(ship).toMatchObject({ status: 'completed', result: { shippedAt: expect.any(String) } });
    const arrivals = (await shop.simulator.client.ledger()).filter(({ key }) => key !== null);
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
    await shop.simulator.client.script({ service: 'mail', steps: ['answer_lost'] });
    await shop.place('acme', 'order-2', TEAPOTS);

    const { receipt, ship } = await shop.operationsAtRest('acme', 'order-2');

    expect(receipt).toMatchObject({ status: 'in_doubt', attempts: 1 });
    expect(ship).toMatchObject({ status: 'completed' });
    const mails = await shop.simulator.client.mailbox('default', { to: 'ada@acme.test' });
    expect(mails.filter(({ subject }) => subject.endsWith('order-2'))).toHaveLength(1);
    const health = await fetch(`${shop.url}/health`);
    expect(health.status).toBe(200);
    expect(await health.json()).toMatchObject({ details: { receipts: { status: 'degraded', inDoubt: 1 } } });
  });

  it('shows what happened to Prometheus, whoever asks, and names no customer', async () => {
    await shop.place('acme', 'order-metrics', TEAPOTS);
    await shop.operationsAtRest('acme', 'order-metrics');

    const response = await fetch(`${shop.url}/metrics`);

    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    const text = await response.text();
    expect(text).toMatch(/^jobs_processed_total\{queue="charges",job="charge",result="completed"\} [1-9]/m);
    expect(text).toMatch(/^queue_depth\{queue="receipts",state="waiting"\} \d/m);
    expect(text).not.toMatch(/acme|order-metrics|ada/);
  });

  it('ships once and charges once, even when the outcomes are forgotten and all of it is asked for again', async () => {
    await shop.place('acme', 'order-7', TEAPOTS);
    const first = await shop.operationsAtRest('acme', 'order-7');
    const keys = [reserveKeyOf('order-7'), chargeKeyOf('order-7'), shipKeyOf('order-7')];
    await shop.app.get(DataSource).query('DELETE FROM job_outcomes WHERE operation_key = ANY($1)', [keys]);
    const token = getIdempotentQueueToken(INVENTORY);
    const inventory = shop.app.get<IdempotentQueue<InventoryJobs>>(token, { strict: false });
    const order = { orderId: 'order-7', sku: 'teapot', quantity: 2 };

    const [reserveKey = '', , shipKey = ''] = keys;
    const reserved = await inventory.enqueue('reserve', order, {
      tenantId: 'acme',
      operationKey: reserveKey,
    });
    const shipped = await inventory.enqueue(
      'ship',
      { orderId: 'order-7' },
      { tenantId: 'acme', operationKey: shipKey },
    );

    const outcomes = shop.app.get(OutcomeService, { strict: false });
    expect(await outcomes.wait(reserved)).toMatchObject({ status: 'completed', result: { quantity: 2 } });
    expect(await outcomes.wait(shipped)).toMatchObject({
      status: 'completed',
      result: (first.ship as { result: unknown }).result,
    });
    const charge = { tenantId: 'acme', operationKey: chargeKeyOf('order-7') };
    expect(await outcomes.get(charge)).toBeUndefined();
  });

  it('refuses the key of another order, an order of another tenant, and a request of none', async () => {
    await shop.place('acme', 'order-3', TEAPOTS);

    expect((await shop.place('acme', 'order-3', { ...TEAPOTS, quantity: 3 })).status).toBe(409);
    expect((await shop.place('globex', 'order-4', TEAPOTS)).status).toBe(422);
    expect((await shop.find('globex', 'order-3')).status).toBe(404);
    expect((await fetch(`${shop.url}/orders/order-3`)).status).toBe(400);
    expect((await shop.place('acme', 'order-5', { ...TEAPOTS, quantity: 0 })).status).toBe(400);
  });

  it('gives an order up that the stock cannot serve, and charges nothing', async () => {
    await shop.place('acme', 'order-6', { ...TEAPOTS, quantity: 100 });

    const { reserve, charge } = await shop.operationsAtRest('acme', 'order-6');

    expect(reserve).toMatchObject({ status: 'dead', error: { message: expect.stringContaining('stock') } });
    expect(charge).toEqual({ status: 'awaited' });
  });
});
