import 'reflect-metadata';
import { TransientError } from 'nestjs-idempotent-jobs';
import type { Effect } from 'nestjs-idempotent-jobs';
import { processorOf } from './processors.js';
import type { Place } from './place.js';
import { startApp } from './start-app.js';

/*
 * A worker in a process of its own, for tests that kill, stop and continue it. Its handler charges a card at the
 * simulator's gateway, which is the judge of what happened; it tells its parent where it is.
 */

export interface WorkerScript {
  readonly place: Place;
  readonly effect: Effect;
  readonly gateway: string;
  readonly run: string;
  readonly leaseMs: number;
  /** `charge`: call the gateway. `die`: kill the own process with SIGKILL before the call. `write`: insert a row; `write and hold`: and never return. */
  readonly act: 'charge' | 'die' | 'write' | 'write and hold';
}

const script = JSON.parse(process.env['WORKER_SCRIPT'] as string) as WorkerScript;

const processor = processorOf(
  'charges',
  {
    effect: script.effect,
    leaseMs: script.leaseMs,
    timeoutMs: 60_000,
    retry: { attempts: 10, backoff: { baseMs: 50, capMs: 100 } },
  },
  async (_job, operation) => {
    const { tenantId, operationKey, attempt, fencingToken, idempotencyKey } = operation;
    process.send?.({ at: 'handler', attempt, fencingToken });
    if (script.act === 'die') process.kill(process.pid, 'SIGKILL');
    if (script.act === 'write' || script.act === 'write and hold') {
      await operation.transaction.query('INSERT INTO reservations VALUES ($1)', [process.pid]);
      process.send?.({ at: 'wrote', attempt });
      if (script.act === 'write and hold') await new Promise(() => undefined);
      return { by: process.pid };
    }
    const response = await fetch(`${script.gateway}/charges`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'idempotency-key': idempotencyKey,
        'x-run': script.run,
        'x-tenant': tenantId,
        'x-attempt': String(attempt),
        'x-fencing-token': String(fencingToken),
        'x-worker': String(process.pid),
      },
      body: JSON.stringify({ tenant: tenantId, orderId: operationKey, amountCents: 500, currency: 'EUR' }),
    });
    process.send?.({ at: 'answered', attempt });
    if (!response.ok) throw new TransientError(`HTTP ${response.status}`);
    return response.json();
  },
  { concurrency: 1, lockDuration: 1500, stalledInterval: 300, drainDelay: 1 },
);

const app = await startApp(script.place, {
  queues: ['charges'],
  providers: [processor],
  jobs: { leaseMs: script.leaseMs, recovery: { sweepMs: 500 } },
});
app.enableShutdownHooks();
process.on('disconnect', () => process.exit(0));
process.send?.({ at: 'ready' });
