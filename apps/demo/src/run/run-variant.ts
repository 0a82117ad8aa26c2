import { settingsFrom } from 'payments';
import type { DemoOptions } from '../options.js';
import { startOutsideWorld } from '../servers/outside-world.js';
import { makePlace, type Servers } from '../servers/servers.js';
import { UndoList } from '../servers/undo-list.js';
import type { OrderStream, PlacedOrder } from '../stream/order-stream.js';
import type { Shop, Variant } from '../variants/variant.js';
import { faultShare, type FaultShare } from '../verdict/fault-share.js';
import { judge, type Verdict } from '../verdict/judge.js';
import { crash, type Crash, prepareCrash } from './crash.js';
import { flush, type Flush } from './flush.js';
import { showProgress } from './progress.js';
import { until } from './until.js';
import { Workers } from './workers.js';

/** What became of the stream in one variant's hands. */
export interface VariantReport {
  readonly verdict: Verdict;
  readonly crash: Crash;
  /** Undefined: Redis was not to be lost. */
  readonly flush: Flush | undefined;
  readonly faults: FaultShare;
  /** Why not everything has come to rest, so that some operations are not accounted for; undefined: it has. */
  readonly unrest: string | undefined;
}

/**
 * Crashed workers and lost queues are noticed, failed calls repeated, and services asked, within seconds instead of
 * minutes: the same for all variants, as is the number of jobs that a worker does at the same time.
 */
const PACE = {
  CONCURRENCY: '10',
  LOCK_MS: '5000',
  STALL_CHECK_MS: '2000',
  LEASE_MS: '4000',
  REDISPATCH_MS: '2000',
  RETRY_BASE_MS: '200',
  RETRY_CAP_MS: '2000',
  // A third of the calls fail, for as long as the demo lasts: what is to be shown is what retries do.
  RETRIES_PER_SECOND: '100',
  CIRCUIT_OPEN_MS: '500',
  RECONCILE_AFTER_MS: '250,1000',
  RECONCILE_THEN_EVERY_MS: '1000',
  RECONCILE_UNTIL_MS: '60000',
  RECONCILE_TIMEOUT_MS: '2000',
  // An effect that happens over there has happened before the connection breaks off; this is for what is on its way.
  RECONCILE_LATE_ARRIVAL_MS: '500',
  LOGS: 'none',
};
const WORKERS = ['worker-1', 'worker-2'];
const CUSTOMERS = 8;
/** The share of charges after which Redis is lost: most orders still have something to lose. */
const FLUSH_AFTER = 0.4;
/** Of any variant. */
const QUEUES = ['inventory', 'charges', 'receipts'];

/** Runs the stream through a variant, crash included, and judges it by the outside world's ledger. */
export async function runVariant(
  variant: Variant,
  stream: OrderStream,
  { seed, loseRedis }: DemoOptions,
  servers: Servers,
  undoAll: UndoList,
  deadline: number,
): Promise<VariantReport> {
  const undo = new UndoList();
  undoAll.add(() => undo.close());
  try {
    const world = await startOutsideWorld(seed, variant.honoursKeys, undo);
    const place = await makePlace(servers, variant.name.toLowerCase(), undo);
    const services = { GATEWAY_URL: world.http, SMTP_URL: world.smtp, MAILBOX_URL: world.http };
    const env = { ...PACE, ...place, ...services, ...variant.env };
    const settings = settingsFrom(env);
    const shop = await variant.open(settings, env, undo);
    const workers = new Workers(variant.workerProgram, env, undo);
    await Promise.all(WORKERS.map((name) => workers.start(name)));

    const hideProgress = showProgress(variant.title, stream.orders.length, world.client);
    undo.add(async () => hideProgress());
    const victim = stream.orders[Math.floor(stream.orders.length / 3)] as PlacedOrder;
    await prepareCrash(world.client, victim.id);
    const startedAt = performance.now();
    const plan = { queues: QUEUES, charges: stream.orders.length * FLUSH_AFTER, orderId: victim.id };
    const [crashed, flushed] = await Promise.all([
      crash(world.client, victim.id, workers, deadline),
      loseRedis ? flush(world.client, settings, plan, startedAt, deadline) : undefined,
      placeAll(shop, stream.sequence),
    ]);
    const unrest = await untilAtRest(shop, stream.orders.length, workers, deadline);
    const seconds = (performance.now() - startedAt) / 1000;
    hideProgress();

    const entries = await world.client.ledger();
    const verdict = judge(stream.orders, entries, await shop.unsettled(), seconds);
    const faults = faultShare(entries, await world.client.faultCounts('default'));
    return { verdict, crash: crashed, flush: flushed, faults, unrest };
  } finally {
    await undo.close();
  }
}

/** A few customers at the same time, each of whom waits for the answer. */
async function placeAll(shop: Shop, sequence: readonly PlacedOrder[]): Promise<void> {
  const orders = sequence.values();
  const customer = async (): Promise<void> => {
    for (const order of orders) await shop.place(order);
  };
  await Promise.all(Array.from({ length: CUSTOMERS }, customer));
}

/** Returns why it does not come to rest, if it does not. */
async function untilAtRest(
  shop: Shop,
  orders: number,
  workers: Workers,
  deadline: number,
): Promise<string | undefined> {
  try {
    await until('everything has come to rest', deadline, 200, () => {
      workers.assertRunning();
      return shop.isAtRest(orders);
    });
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
