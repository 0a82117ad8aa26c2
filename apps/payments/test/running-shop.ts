/** A shop with an outside world of its own, and what its customers can do. */
import type { INestApplicationContext } from '@nestjs/common';
import type { LocalPostgres } from 'local-servers';
import { type RunningSimulator, startSimulator } from 'simulator';
import { DataSource } from 'typeorm';
import { boot } from '../src/boot.js';
import { stockUp } from '../src/inventory/stock.js';
import type { OrderProgress, StepProgress } from '../src/orders/order-progress.service.js';
import { settingsFrom } from '../src/settings.js';

export const TEAPOTS = { sku: 'teapot', quantity: 2, customerEmail: 'ada@acme.test' };

export class RunningShop {
  private constructor(
    readonly app: INestApplicationContext,
    readonly url: string,
    readonly simulator: RunningSimulator,
  ) {}

  /** Ten teapots are on the shelves of acme; `env` are the settings that differ from the usual ones. */
  static async open(
    postgres: LocalPostgres,
    name: string,
    env: NodeJS.ProcessEnv = {},
  ): Promise<RunningShop> {
    const simulator = await startSimulator();
    const settings = settingsFrom({
      DATABASE_URL: await postgres.createDatabase(name),
      GATEWAY_URL: simulator.http,
      SMTP_URL: simulator.smtp,
      MAILBOX_URL: simulator.http,
      LOGS: 'none',
      ...env,
    });
    const { app, url = '' } = await boot(settings, 0);
    const shelf = { sku: 'teapot', unitPriceCents: 1999, currency: 'EUR', available: 10 };
    await stockUp(app.get(DataSource).manager, 'acme', [shelf]);
    return new RunningShop(app, url, simulator);
  }

  async close(): Promise<void> {
    await this.app.close();
    await this.simulator.stop();
  }

  async place(tenant: string, key: string, body: object): Promise<{ status: number; body: unknown }> {
    const response = await fetch(`${this.url}/orders`, {
      method: 'POST',
      headers: { 'x-tenant-id': tenant, 'idempotency-key': key, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  find(tenant: string, id: string): Promise<Response> {
    return fetch(`${this.url}/orders/${id}`, { headers: { 'x-tenant-id': tenant } });
  }

  /** Waits until no step of the order is on its way. */
  async operationsAtRest(tenant: string, id: string): Promise<OrderProgress> {
    for (const deadline = Date.now() + 15_000; ;) {
      const { operations } = (await (await this.find(tenant, id)).json()) as { operations: OrderProgress };
      if (isAtRest(operations)) return operations;
      if (Date.now() > deadline)
        throw new Error(`Order ${id} does not come to rest: ${JSON.stringify(operations)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** How many charges and mails there really were. */
  async effects(): Promise<{ charges: number; mails: number }> {
    const effects = (await this.simulator.client.ledger()).filter(({ effect }) => effect);
    const charges = effects.filter(({ service }) => service === 'charge').length;
    return { charges, mails: effects.length - charges };
  }
}

/** A step that did not complete has none after it. */
function isAtRest({ reserve, charge, receipt, ship }: OrderProgress): boolean {
  if (reserve.status !== 'completed') return isOver(reserve);
  if (charge.status !== 'completed') return isOver(charge);
  return isOver(receipt) && isOver(ship);
}

/** In doubt and asked about is not over. */
function isOver(step: StepProgress): boolean {
  if (step.status === 'in_doubt') return !step.reconcileDueAt;
  return step.status === 'completed' || step.status === 'dead';
}
