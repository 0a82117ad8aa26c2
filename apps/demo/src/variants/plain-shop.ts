/** The door of the variants (a) and (b): stores the order, then adds the job to BullMQ. */
import { Queue } from 'bullmq';
import { selectBackendByConnection } from 'nestjs-idempotent-jobs';
import { queueConnection, type Settings } from 'payments';
import { Pool } from 'pg';
import { CHARGES, type OrderJob, RECEIPTS, RETRIES } from '../plain/order-job.js';
import type { UndoList } from '../servers/undo-list.js';
import type { PlacedOrder } from '../stream/order-stream.js';
import type { Shop, Step, Unsettled } from './variant.js';

/** How the two variants' doors differ. */
export interface PlainShopOptions {
  /** A table that the variant's workers need. */
  readonly schema?: string;
  /** The BullMQ job id of an order's charge. Default: BullMQ numbers jobs. */
  readonly jobIdOf?: (order: PlacedOrder) => string;
}

const OPEN_STATES = ['waiting', 'active', 'delayed', 'prioritized'] as const;

export async function openPlainShop(
  settings: Settings,
  undo: UndoList,
  { schema, jobIdOf }: PlainShopOptions,
): Promise<Shop> {
  selectBackendByConnection();
  const pool = new Pool({ connectionString: settings.databaseUrl, max: 4 });
  pool.on('error', () => undefined);
  undo.add(() => pool.end());
  if (schema !== undefined) await pool.query(schema);
  const queueOf = async (name: string): Promise<Queue> => {
    const queue = new Queue(name, queueConnection(settings));
    queue.on('error', () => undefined);
    undo.add(() => queue.close());
    await queue.waitUntilReady();
    return queue;
  };
  const charges = await queueOf(CHARGES);
  const receipts = await queueOf(RECEIPTS);
  return {
    async place(order) {
      await store(pool, order);
      const job: OrderJob = { tenantId: order.tenantId, orderId: order.id };
      await charges.add('charge', job, { ...RETRIES, ...(jobIdOf && { jobId: jobIdOf(order) }) });
    },
    // Charges add receipts before they are done, so looking at the charges first misses none.
    isAtRest: async () => (await isIdle(charges)) && (await isIdle(receipts)),
    unsettled: async () => [...(await failed(charges, 'charge')), ...(await failed(receipts, 'receipt'))],
  };
}

async function store(pool: Pool, order: PlacedOrder): Promise<void> {
  const { tenantId, id, sku, quantity, customerEmail, amountCents, currency } = order;
  await pool.query(
    `INSERT INTO orders (tenant_id, id, sku, quantity, customer_email, amount_cents, currency)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
    [tenantId, id, sku, quantity, customerEmail, amountCents, currency],
  );
}

async function isIdle(queue: Queue): Promise<boolean> {
  const counts = await queue.getJobCounts(...OPEN_STATES);
  return Object.values(counts).every((count) => count === 0);
}

/** Plain BullMQ's dead letters: what it failed for good. Nothing is ever in doubt, since nobody asks. */
async function failed(queue: Queue<OrderJob>, step: Step): Promise<Unsettled[]> {
  const jobs = await queue.getFailed();
  return jobs.map(({ data }) => ({ step, orderId: data.orderId, state: 'dead' }));
}
