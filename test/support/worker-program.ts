import 'reflect-metadata';
import { type CanActivate, UseGuards } from '@nestjs/common';
import { setTimeout as pause } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { type CurrentOperation, OnDeadLetter, PermanentError, TransientError } from 'nestjs-idempotent-jobs';
import { Pool } from 'pg';
import { processorOf } from './processors.js';
import { startApp } from './start-app.js';
import type { WorkerScript } from './worker-script.js';

/*
 * A worker in a process of its own, for tests that kill, stop and continue it. The judge of what happened is the
 * simulator's gateway or the table `work`; the handler tells its parent where it is.
 */

const script = JSON.parse(process.env['WORKER_SCRIPT'] as string) as WorkerScript;
const notes = new Pool({ connectionString: script.place.databaseUrl, max: 4 });

const toldToStop = new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()));

async function work({ operationKey, attempt, signal }: CurrentOperation): Promise<void> {
  const note = (event: string): Promise<unknown> =>
    notes.query('INSERT INTO work VALUES ($1, $2, $3, $4)', [operationKey, attempt, process.pid, event]);
  await note('started');
  if (script.act === 'work until told') await toldToStop;
  await pause(script.workMs ?? 0, undefined, { signal });
  await note('done');
}

async function write({ attempt, transaction }: CurrentOperation): Promise<unknown> {
  await transaction.query('INSERT INTO reservations VALUES ($1)', [process.pid]);
  process.send?.({ at: 'wrote', attempt });
  if (script.act === 'write and hold') await new Promise(() => undefined);
  return { by: process.pid };
}

async function charge(operation: CurrentOperation): Promise<unknown> {
  const { tenantId, operationKey, attempt, fencingToken, idempotencyKey } = operation;
  const response = await fetch(`${script.gateway}/charges`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'idempotency-key': idempotencyKey,
      'x-run': script.run ?? '',
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
}

const processor = processorOf(
  'charges',
  {
    effect: script.effect,
    leaseMs: script.leaseMs,
    timeoutMs: 60_000,
    retry: { attempts: 10, backoff: { baseMs: 50, capMs: 100 } },
  },
  (_job, operation) => {
    process.send?.({ at: 'handler', attempt: operation.attempt, fencingToken: operation.fencingToken });
    switch (script.act) {
      case 'die':
        return process.kill(process.pid, 'SIGKILL');
      case 'bury and hold':
        throw new PermanentError('no such account');
      case 'work':
      case 'work until told':
        return work(operation);
      case 'write':
      case 'write and hold':
        return write(operation);
      default:
        return charge(operation);
    }
  },
  { concurrency: script.concurrency ?? 1, lockDuration: 1500, stalledInterval: 300, drainDelay: 1 },
);

class DeadlyGuard implements CanActivate {
  canActivate(): boolean {
    return process.kill(process.pid, 'SIGKILL');
  }
}
if (script.act === 'die before the claim') UseGuards(DeadlyGuard)(processor);

class HoldingAlerts {
  @OnDeadLetter('charges')
  hold(): Promise<never> {
    process.send?.({ at: 'told' });
    return new Promise(() => undefined);
  }
}

/** Between the put and its mark. */
function dieAfterPut(): void {
  const addBulk = Reflect.get(Queue.prototype, 'addBulk') as (...jobs: unknown[]) => Promise<unknown>;
  Reflect.set(Queue.prototype, 'addBulk', async function (this: Queue, ...jobs: unknown[]) {
    const added = await Reflect.apply(addBulk, this, jobs);
    process.kill(process.pid, 'SIGKILL');
    return added;
  });
}

const isDispatcherOnly = script.act === 'die after put';
const alerts = script.act === 'bury and hold' ? [HoldingAlerts] : [];
if (isDispatcherOnly) dieAfterPut();
const app = await startApp(script.place, {
  queues: ['charges'],
  providers: isDispatcherOnly ? [] : [processor, ...alerts],
  jobs: {
    leaseMs: script.leaseMs,
    recovery: { sweepMs: 500 },
    ...(script.drainMs !== undefined && { shutdown: { drainMs: script.drainMs } }),
  },
});
app.enableShutdownHooks();
process.on('disconnect', () => process.exit(0));
process.send?.({ at: 'ready' });
