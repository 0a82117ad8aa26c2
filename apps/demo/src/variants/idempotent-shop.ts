/** The door of the variants (c) and (d): the sample application's own HTTP interface, in a process of its own. */
import { fileURLToPath } from 'node:url';
import { Client } from 'pg';
import type { Settings } from 'payments';
import { Child } from '../servers/child.js';
import type { UndoList } from '../servers/undo-list.js';
import type { PlacedOrder } from '../stream/order-stream.js';
import type { Shop, Step, Unsettled } from './variant.js';

/** The sample application; its role tells whether it is the door or a worker. */
export const PAYMENTS = fileURLToPath(import.meta.resolve('payments/main.js'));

export async function openIdempotentShop(
  settings: Settings,
  env: NodeJS.ProcessEnv,
  undo: UndoList,
): Promise<Shop> {
  const api = await Child.start('api', PAYMENTS, { ...env, ROLE: 'api', PORT: '0' }, undo);
  const ledger = new Client({ connectionString: settings.databaseUrl });
  ledger.on('error', () => undefined);
  await undo.keep(ledger.connect(), () => ledger.end());
  return {
    place: (order) => place(`${api.url}/orders`, order),
    async isAtRest(orders) {
      const { rows } = await ledger.query<{ reserved: number; open: number }>(`
        SELECT count(*) FILTER (WHERE job_name = 'reserve')::integer AS reserved,
               count(*) FILTER (
                 WHERE status IN ('pending', 'running', 'retrying') OR status = 'in_doubt' AND reconcile_due_at IS NOT NULL
               )::integer AS open
        FROM job_outcomes`);
      return rows[0]?.reserved === orders && rows[0].open === 0;
    },
    async unsettled() {
      // An operation in doubt has a letter as well, but one that asks a question; it is not dead.
      const { rows } = await ledger.query<{ step: Step; operation_key: string; state: 'in_doubt' | 'dead' }>(`
        SELECT job_name AS step, operation_key, status AS state FROM job_outcomes WHERE status = 'in_doubt'
        UNION ALL
        SELECT job_name, coalesce(operation_key, ''), 'dead' FROM dead_letters WHERE resolved_at IS NULL AND reason <> 'in_doubt'`);
      return rows.map(({ step, operation_key, state }): Unsettled => {
        return { step, orderId: operation_key.slice(`${step}:`.length), state };
      });
    },
  };
}

async function place(url: string, order: PlacedOrder): Promise<void> {
  const { tenantId, id, sku, quantity, customerEmail } = order;
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-tenant-id': tenantId, 'idempotency-key': id },
    body: JSON.stringify({ sku, quantity, customerEmail }),
  });
  if (!response.ok)
    throw new Error(`The shop answered ${response.status} to ${id}: ${await response.text()}`);
}
