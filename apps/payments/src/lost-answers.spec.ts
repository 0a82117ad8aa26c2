import { type LocalPostgres, startPostgres } from 'local-servers';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { RunningShop, TEAPOTS } from '../test/running-shop.js';

// Before the processors' classes are loaded: their decorators read it.
vi.hoisted(() => {
  Object.assign(process.env, {
    RETRY_BASE_MS: '50',
    RETRY_CAP_MS: '200',
    RETRIES_PER_SECOND: '100',
    RECONCILE_AFTER_MS: '100,300',
    RECONCILE_THEN_EVERY_MS: '300',
    RECONCILE_UNTIL_MS: '10000',
    RECONCILE_LATE_ARRIVAL_MS: '400',
  });
});

let postgres: LocalPostgres;
let shop: RunningShop;
let opened = 0;

beforeAll(async () => {
  postgres = await startPostgres();
}, 60_000);

afterEach(async () => {
  await shop?.close();
}, 60_000);

afterAll(() => postgres?.stop(), 60_000);

async function open(env: NodeJS.ProcessEnv): Promise<RunningShop> {
  shop = await RunningShop.open(postgres, `shop_${(opened += 1)}`, env);
  return shop;
}

describe('a charge whose answer is lost', () => {
  it.each([
    { way: 'key', honourKeys: true, calls: 2, charge: { status: 'completed', attempts: 2 } },
    { way: 'look-up', honourKeys: false, calls: 1, charge: { status: 'completed', attempts: 1 } },
    { way: 'neither', honourKeys: false, calls: 1, charge: { status: 'in_doubt', attempts: 1 } },
  ])(
    'is one charge, and $charge.status, when charged by $way',
    async ({ way, honourKeys, calls, charge }) => {
      const { simulator } = await open({ CHARGE_BY: way });
      await simulator.client.faults({ service: 'charge', honourKeys });
      await simulator.client.script({ service: 'charge', steps: ['answer_lost'] });
      await shop.place('acme', 'order-1', TEAPOTS);

      const operations = await shop.operationsAtRest('acme', 'order-1');

      expect(operations.charge).toMatchObject(charge);
      const followUp = charge.status === 'completed' ? 'completed' : 'awaited';
      expect(operations).toMatchObject({ receipt: { status: followUp }, ship: { status: followUp } });
      expect(await shop.effects()).toEqual({ charges: 1, mails: followUp === 'completed' ? 1 : 0 });
      const arrivals = (await simulator.client.ledger()).filter(({ service }) => service === 'charge');
      expect(arrivals).toHaveLength(calls);
    },
  );

  it.each(['error_after_effect', 'late'] as const)(
    'is one charge when it was $0 and is looked up',
    async (step) => {
      const { simulator } = await open({ CHARGE_BY: 'look-up', GATEWAY_TIMEOUT_MS: '150' });
      await simulator.client.faults({ service: 'charge', honourKeys: false });
      await simulator.client.script({ service: 'charge', steps: [step], slowMs: 400 });
      await shop.place('acme', 'order-1', TEAPOTS);

      const { charge } = await shop.operationsAtRest('acme', 'order-1');

      expect(charge).toMatchObject({ status: 'completed', attempts: 1 });
      expect(await shop.effects()).toEqual({ charges: 1, mails: 1 });
    },
  );

  it('is two charges when a key is sent to a gateway that honours none: the way has to fit the gateway', async () => {
    const { simulator } = await open({ CHARGE_BY: 'key' });
    await simulator.client.faults({ service: 'charge', honourKeys: false });
    await simulator.client.script({ service: 'charge', steps: ['answer_lost'] });
    await shop.place('acme', 'order-1', TEAPOTS);

    await shop.operationsAtRest('acme', 'order-1');

    expect(await shop.effects()).toEqual({ charges: 2, mails: 1 });
  });

  it('is made again when the gateway has taken nothing', async () => {
    const { simulator } = await open({ CHARGE_BY: 'look-up' });
    await simulator.client.faults({ service: 'charge', honourKeys: false });
    await simulator.client.script({
      service: 'charge',
      steps: ['refused', 'throttled'],
      retryAfterSeconds: 0,
    });
    await shop.place('acme', 'order-1', TEAPOTS);

    const { charge } = await shop.operationsAtRest('acme', 'order-1');

    expect(charge).toMatchObject({ status: 'completed', attempts: 3 });
    expect(await shop.effects()).toEqual({ charges: 1, mails: 1 });
  });
});

describe('a mail whose answer is lost', () => {
  it('is one mail, found in the mailbox, when mailed by look-up', async () => {
    const { simulator } = await open({ MAIL_BY: 'look-up' });
    await simulator.client.script({ service: 'mail', steps: ['answer_lost'] });
    await shop.place('acme', 'order-1', TEAPOTS);

    const { receipt } = await shop.operationsAtRest('acme', 'order-1');

    const [mail] = await simulator.client.mailbox('default');
    expect(receipt).toMatchObject({ status: 'completed', attempts: 1 });
    expect(mail?.messageId).toBe(`<${(receipt as { result: { messageId: string } }).result.messageId}>`);
    expect(await shop.effects()).toEqual({ charges: 1, mails: 1 });
  });

  it('is sent again when the server has refused it', async () => {
    const { simulator } = await open({ MAIL_BY: 'look-up' });
    await simulator.client.script({ service: 'mail', steps: ['refused'] });
    await shop.place('acme', 'order-1', TEAPOTS);

    const { receipt } = await shop.operationsAtRest('acme', 'order-1');

    expect(receipt).toMatchObject({ status: 'completed', attempts: 2 });
    expect(await shop.effects()).toEqual({ charges: 1, mails: 1 });
  });
});
