import 'reflect-metadata';
import { type CanActivate, UseGuards } from '@nestjs/common';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { DelayedError, type Job, Queue } from 'bullmq';
import {
  type CurrentOperation,
  type IdempotentProcessorOptions,
  PermanentError,
  Reconciliation,
  RetryLaterError,
  TransientError,
} from 'nestjs-idempotent-jobs';
import { fencedUpdate } from 'nestjs-idempotent-jobs/calls';
import { OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import { Pool } from 'pg';
import { type Handler, processorOf, reconcilingProcessorOf } from './processors.js';
import { startApp } from './start-app.js';
import type { WorkerScript } from './worker-script.js';

/*
 * A worker in a process of its own, for tests that kill, stop and continue it. The judge of what happened is the
 * simulator's gateway or the table `work`; the handler tells its parent where it is.
 */

const script = JSON.parse(process.env['WORKER_SCRIPT'] as string) as WorkerScript;
if (script.clockAheadMs !== undefined) setClockAhead(script.clockAheadMs);
const notes = new Pool({ connectionString: script.place.databaseUrl, max: 4 });
// What it loses is the test's to see; the process is to end by nothing but the library's own fault.
notes.on('error', () => undefined);
notes.on('connect', (client) => client.on('error', () => undefined));

const toldToStop = new Promise<void>((resolve) => process.once('SIGTERM', () => resolve()));

/** The process's own clock, wrong by so much from the start. */
function setClockAhead(ms: number): void {
  const right = Date.now.bind(Date);
  Date.now = () => right() + ms;
}

function block({ attempt }: CurrentOperation): { by: number } {
  if (attempt <= (script.times ?? 1))
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, script.workMs ?? 0);
  return { by: process.pid };
}

function refuse({ attempt }: CurrentOperation): { by: number } {
  if (attempt <= (script.times ?? 1)) throw new RetryLaterError(script.workMs ?? 0, 'refused');
  return { by: process.pid };
}

async function work({ operationKey, attempt, signal }: CurrentOperation): Promise<void> {
  const note = (event: string): Promise<unknown> =>
    notes.query('INSERT INTO work VALUES ($1, $2, $3, $4)', [operationKey, attempt, process.pid, event]);
  await note('started');
  if (script.act === 'work until told') await toldToStop;
  await pause(script.workMs ?? 0, undefined, { signal });
  await note('done');
}

function dieIf(at: WorkerScript['dieAt']): void {
  if (script.dieAt === at) process.kill(process.pid, 'SIGKILL');
}

async function write({ attempt, transaction }: CurrentOperation): Promise<unknown> {
  dieIf('before the effect');
  await transaction.query('INSERT INTO reservations VALUES ($1)', [process.pid]);
  dieIf('after the answer');
  process.send?.({ at: 'wrote', attempt });
  if (script.act === 'write and hold') await new Promise(() => undefined);
  return { by: process.pid, mark: script.mark };
}

/** Neither lease nor lock is renewed meanwhile; what the handler does then, it does before anybody could stop it. */
function blockUntilTold(): unknown {
  // By a file, since a message would only leave when the process goes on.
  writeFileSync(`${script.tellBy}.blocked`, '');
  const clock = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    const verdict = verdictSoFar();
    if (verdict !== undefined) return endAs(verdict);
    Atomics.wait(clock, 0, 0, 20);
  }
}

/** Its job is back on the queue before the handler has told so. */
async function putOffAndBlock(job: Job): Promise<unknown> {
  await job.moveToDelayed(Date.now() + 100, job.token);
  return blockUntilTold();
}

async function holdUntilTold(): Promise<unknown> {
  for (;;) {
    const verdict = verdictSoFar();
    if (verdict !== undefined) return endAs(verdict);
    await pause(20);
  }
}

function verdictSoFar(): string | undefined {
  const file = script.tellBy as string;
  return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
}

function endAs(verdict: string): unknown {
  if (verdict === 'fail') throw new TransientError(`told to fail: ${process.pid}`);
  if (verdict === 'hand back') throw new DelayedError();
  return { by: process.pid };
}

async function writeFenced(): Promise<void> {
  await pause(script.workMs ?? 0);
  const outcome = await fencedUpdate(notes, {
    table: 'accounts',
    key: { id: 1 },
    set: { by_pid: process.pid },
  });
  process.send?.({ at: 'fenced', outcome });
}

/** Each of the steps is a charge of its own. */
async function twoSteps({ step }: CurrentOperation): Promise<unknown> {
  const first = await step('first', charge, { effect: 'keyed' });
  dieIf('after the first step');
  return [first, await step('second', charge, { effect: 'keyed' })];
}

async function lookUp({ tenantId, idempotencyKey }: CurrentOperation): Promise<Reconciliation> {
  dieIf('while it asks');
  const url = new URL(`${script.gateway}/charges`);
  url.searchParams.set('key', idempotencyKey);
  const response = await fetch(url, { headers: { 'x-run': script.run ?? '', 'x-tenant': tenantId } });
  if (response.status === 404) return Reconciliation.notApplied();
  return response.ok ? Reconciliation.applied(await response.json()) : Reconciliation.unknown();
}

async function charge(operation: CurrentOperation): Promise<unknown> {
  const { tenantId, operationKey, attempt, fencingToken, idempotencyKey } = operation;
  dieIf('before the effect');
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
  dieIf('after the answer');
  process.send?.({ at: 'answered', attempt });
  if (!response.ok) throw new TransientError(`HTTP ${response.status}`);
  return { ...((await response.json()) as object), mark: script.mark };
}

const options: IdempotentProcessorOptions = {
  effect: script.effect,
  leaseMs: script.leaseMs,
  timeoutMs: script.timeoutMs ?? 60_000,
  retry: { attempts: 10, backoff: { baseMs: 50, capMs: 100 } },
};
const handler: Handler = (job, operation) => {
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
    case 'two steps':
      return twoSteps(operation);
    case 'write fenced':
      return writeFenced();
    case 'block until told':
      return blockUntilTold();
    case 'put off and block until told':
      return putOffAndBlock(job);
    case 'hold until told':
      return holdUntilTold();
    case 'block':
      return block(operation);
    case 'refuse':
      return refuse(operation);
    default:
      return charge(operation);
  }
};
const pace = {
  concurrency: script.concurrency ?? 1,
  lockDuration: 1500,
  stalledInterval: 300,
  drainDelay: 1,
  ...(script.maxStalledCount !== undefined && { maxStalledCount: script.maxStalledCount }),
};
const processor =
  script.effect === 'reconciled'
    ? reconcilingProcessorOf(
        'charges',
        { ...options, reconcile: { afterMs: [100, 500], thenEveryMs: 500 } },
        handler,
        lookUp,
        pace,
      )
    : processorOf('charges', options, handler, pace);

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
if (script.dieAt === 'after the record')
  app.get(JobEvents).subscribe((event) => {
    if (event.kind === 'completed') dieIf('after the record');
  });
if (script.tellBy !== undefined)
  app.get(JobEvents).subscribe(({ kind }) => process.send?.({ at: 'event', kind }));
app.enableShutdownHooks();
process.on('disconnect', () => process.exit(0));
process.send?.({ at: 'ready' });
