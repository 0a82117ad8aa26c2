import type { WorkerHost } from '@nestjs/bullmq';
import { type CanActivate, type INestApplicationContext, type Type, UseGuards } from '@nestjs/common';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request, type RequestOptions } from 'node:http';
import { json } from 'node:stream/consumers';
import { setTimeout as pause } from 'node:timers/promises';
import { DelayedError, type Job, Queue } from 'bullmq';
import {
  type CurrentOperation,
  type IdempotentProcessorOptions,
  PermanentError,
  Reconciliation,
  RetryLaterError,
  TransientError,
  type IdempotentQueueOptions,
} from 'nestjs-idempotent-jobs';
import { fencedUpdate } from 'nestjs-idempotent-jobs/calls';
import { OnDeadLetter } from 'nestjs-idempotent-jobs/dead-letters';
import { JobEvents } from 'nestjs-idempotent-jobs/observe';
import { Pool } from 'pg';
import type { TestApps } from './apps.js';
import type { ProcessMessage } from './processes.js';
import { processorOf, reconcilingProcessorOf } from './processors.js';
import { LONG_LEASE_MS, type WorkerScript } from './script.js';
import { type AppOptions, singly, startApp } from './start-app.js';

/**
 * A worker whose handler does what its script says, and tells where it is: a process of its own tells its parent. The judge
 * of what happened is the simulator's gateway or the table `work`.
 */
export class ScriptedWorker {
  readonly #script: WorkerScript;
  readonly #tell: (message: ProcessMessage) => void;
  readonly #notes: Pool;
  #toldToStop: Promise<void> | undefined;
  /** The processor of its queue. */
  readonly processor: Type<WorkerHost>;

  constructor(script: WorkerScript, tell: (message: ProcessMessage) => void = () => undefined) {
    this.#script = script;
    this.#tell = tell;
    this.processor = this.#processor();
    this.#notes = new Pool({ connectionString: script.place.databaseUrl, max: 4 });
    // What it loses is the test's to see; the process is to end by nothing but the library's own fault.
    this.#notes.on('error', () => undefined);
    this.#notes.on('connect', (client) => client.on('error', () => undefined));
  }

  /** Its application. */
  get application(): AppOptions {
    const { bundle } = this.#script;
    const isDispatcherOnly = this.#script.act === 'die after put';
    const alerts = this.#script.act === 'bury and hold' ? [HoldingAlerts] : [];
    return {
      queues: [bundle === 'never' ? singly('charges') : queueOf(bundle)],
      providers: isDispatcherOnly ? [] : [this.processor, ...alerts],
      jobs: {
        leaseMs: this.#script.leaseMs,
        recovery: { sweepMs: 500 },
        // What a slow machine has not recorded when its time to close is over would wait for its lease.
        shutdown: {
          closeMs: 60_000,
          ...(this.#script.drainMs !== undefined && { drainMs: this.#script.drainMs }),
        },
      },
    };
  }

  /** Starts its application in a process that has nothing else to do, and that may be killed. */
  async start(): Promise<void> {
    if (this.#script.clockAheadMs !== undefined) setClockAhead(this.#script.clockAheadMs);
    if (this.#script.act === 'die before the claim') UseGuards(DeadlyGuard)(this.processor);
    if (this.#script.act === 'die after put') dieAfterPut();
    this.#toldToStop = new Promise((resolve) => process.once('SIGTERM', () => resolve()));
    const app = await startApp(this.#script.place, this.application);
    if (this.#script.dieAt === 'after the record')
      app.get(JobEvents).subscribe((event) => {
        if (event.kind === 'completed') this.#dieIf('after the record');
      });
    if (this.#script.tellBy !== undefined)
      app.get(JobEvents).subscribe(({ kind }) => this.#tell({ at: 'event', kind }));
    app.enableShutdownHooks();
  }

  #processor(): Type<WorkerHost> {
    const options: IdempotentProcessorOptions = {
      effect: this.#script.effect,
      ...(this.#script.optimistic === true && { optimistic: true }),
      leaseMs: this.#script.leaseMs,
      timeoutMs: this.#script.timeoutMs ?? 60_000,
      retry: { attempts: 10, backoff: { baseMs: 50, capMs: 100 } },
    };
    const pace = {
      concurrency: this.#script.concurrency ?? 1,
      lockDuration: 1500,
      stalledInterval: 300,
      drainDelay: 1,
      autorun: this.#script.looksOn !== true,
      ...(this.#script.maxStalledCount !== undefined && { maxStalledCount: this.#script.maxStalledCount }),
    };
    return this.#script.effect === 'reconciled'
      ? reconcilingProcessorOf(
          'charges',
          { ...options, reconcile: { afterMs: [100, 500], thenEveryMs: 500 } },
          (job, operation) => this.#handle(job, operation),
          (operation) => this.#lookUp(operation),
          pace,
        )
      : processorOf('charges', options, (job, operation) => this.#handle(job, operation), pace);
  }

  #handle(job: Job, operation: CurrentOperation): unknown {
    this.#tell({ at: 'handler', attempt: operation.attempt, fencingToken: operation.fencingToken });
    if (operation.operationKey === this.#script.poison) process.kill(process.pid, 'SIGKILL');
    switch (this.#script.act) {
      case 'die':
        return process.kill(process.pid, 'SIGKILL');
      case 'bury and hold':
        throw new PermanentError('no such account');
      case 'work':
      case 'work until told':
        return this.#work(operation);
      case 'write':
      case 'write and hold':
        return this.#write(operation);
      case 'two steps':
        return this.#twoSteps(operation);
      case 'write fenced':
        return this.#writeFenced();
      case 'block until told':
        return this.#blockUntilTold();
      case 'put off and block until told':
        return this.#putOffAndBlock(job);
      case 'hold until told':
        return this.#holdUntilTold();
      case 'block':
        return this.#block(operation);
      case 'refuse':
        return this.#refuse(operation);
      default:
        return this.#charge(operation);
    }
  }

  #block({ attempt }: CurrentOperation): { by: number } {
    if (attempt <= (this.#script.times ?? 1))
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, this.#script.workMs ?? 0);
    return { by: process.pid };
  }

  #refuse({ attempt }: CurrentOperation): { by: number } {
    if (attempt <= (this.#script.times ?? 1)) throw new RetryLaterError(this.#script.workMs ?? 0, 'refused');
    return { by: process.pid };
  }

  async #work({ operationKey, attempt, signal }: CurrentOperation): Promise<void> {
    const note = (event: string): Promise<unknown> =>
      this.#notes.query('INSERT INTO work VALUES ($1, $2, $3, $4)', [
        operationKey,
        attempt,
        process.pid,
        event,
      ]);
    await note('started');
    if (this.#script.act === 'work until told') await this.#toldToStop;
    await pause(this.#script.workMs ?? 0, undefined, { signal });
    await note('done');
  }

  #dieIf(at: WorkerScript['dieAt']): void {
    if (this.#script.dieAt === at) process.kill(process.pid, 'SIGKILL');
  }

  async #write({ attempt, transaction }: CurrentOperation): Promise<unknown> {
    this.#dieIf('before the effect');
    await transaction.query('INSERT INTO reservations VALUES ($1)', [process.pid]);
    this.#dieIf('after the answer');
    this.#tell({ at: 'wrote', attempt });
    if (this.#script.act === 'write and hold') await new Promise(() => undefined);
    return { by: process.pid, mark: this.#script.mark };
  }

  /** Neither lease nor lock is renewed meanwhile; what the handler does then, it does before anybody could stop it. */
  #blockUntilTold(): unknown {
    // By a file, since a message would only leave when the process goes on.
    writeFileSync(`${this.#script.tellBy}.blocked`, '');
    const clock = new Int32Array(new SharedArrayBuffer(4));
    for (;;) {
      const verdict = this.#verdictSoFar();
      if (verdict !== undefined) return this.#endAs(verdict);
      Atomics.wait(clock, 0, 0, 20);
    }
  }

  /** Its job is back on the queue before the handler has told so. */
  async #putOffAndBlock(job: Job): Promise<unknown> {
    await job.moveToDelayed(Date.now() + 100, job.token);
    return this.#blockUntilTold();
  }

  async #holdUntilTold(): Promise<unknown> {
    for (;;) {
      const verdict = this.#verdictSoFar();
      if (verdict !== undefined) return this.#endAs(verdict);
      await pause(20);
    }
  }

  #verdictSoFar(): string | undefined {
    const file = this.#script.tellBy as string;
    return existsSync(file) ? readFileSync(file, 'utf8') : undefined;
  }

  #endAs(verdict: string): unknown {
    if (verdict === 'fail') throw new TransientError(`told to fail: ${process.pid}`);
    if (verdict === 'hand back') throw new DelayedError();
    return { by: process.pid };
  }

  async #writeFenced(): Promise<void> {
    await pause(this.#script.workMs ?? 0);
    const outcome = await fencedUpdate(this.#notes, {
      table: 'accounts',
      key: { id: 1 },
      set: { by_pid: process.pid },
    });
    this.#tell({ at: 'fenced', outcome });
  }

  /** Each of the steps is a charge of its own. */
  async #twoSteps({ step }: CurrentOperation): Promise<unknown> {
    const first = await step('first', (part) => this.#charge(part), { effect: 'keyed' });
    this.#dieIf('after the first step');
    return [first, await step('second', (part) => this.#charge(part), { effect: 'keyed' })];
  }

  async #lookUp({ tenantId, idempotencyKey }: CurrentOperation): Promise<Reconciliation> {
    this.#dieIf('while it asks');
    const url = new URL(`${this.#script.gateway}/charges`);
    url.searchParams.set('key', idempotencyKey);
    const response = await ask(url, {
      headers: { 'x-run': this.#script.run ?? '', 'x-tenant': tenantId },
    });
    if (response.statusCode === 404) return Reconciliation.notApplied();
    return isOk(response) ? Reconciliation.applied(await json(response)) : Reconciliation.unknown();
  }

  async #charge(operation: CurrentOperation): Promise<unknown> {
    const { tenantId, operationKey, attempt, fencingToken, idempotencyKey } = operation;
    this.#dieIf('before the effect');
    const order = { tenant: tenantId, orderId: operationKey, amountCents: 500, currency: 'EUR' };
    const options = {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'idempotency-key': idempotencyKey,
        'x-run': this.#script.run ?? '',
        'x-tenant': tenantId,
        'x-attempt': String(attempt),
        'x-fencing-token': String(fencingToken),
        'x-worker': String(process.pid),
      },
    };
    const response = await ask(`${this.#script.gateway}/charges`, options, JSON.stringify(order));
    this.#dieIf('after the answer');
    this.#tell({ at: 'answered', attempt });
    if (!isOk(response)) throw new TransientError(`HTTP ${response.statusCode}`);
    return { ...((await json(response)) as object), mark: this.#script.mark };
  }
}

/**
 * A worker in the test's own process, for those that are killed: it looks on until it takes over. Since nobody takes over
 * from it, its lease outlasts any machine's slowness, whatever that of the others is.
 */
export interface Heir {
  readonly app: INestApplicationContext;
  takeOver(): void;
}

export async function heirOf(apps: TestApps, script: WorkerScript): Promise<Heir> {
  const worker = new ScriptedWorker({ ...script, leaseMs: LONG_LEASE_MS, looksOn: true });
  const app = await apps.beside(script.place, worker.application);
  return { app, takeOver: () => void app.get<WorkerHost>(worker.processor).worker.run() };
}

/** Not by fetch(): Node loads that when it is first used, which takes a process about 40 ms of computing. */
function ask(url: string | URL, options: RequestOptions, body?: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request(url, options, resolve).on('error', reject).end(body);
  });
}

const isOk = ({ statusCode = 0 }: IncomingMessage): boolean => statusCode >= 200 && statusCode < 300;

/** The process's own clock, wrong by so much from the start. */
function setClockAhead(ms: number): void {
  const right = Date.now.bind(Date);
  Date.now = () => right() + ms;
}

class DeadlyGuard implements CanActivate {
  canActivate(): boolean {
    return process.kill(process.pid, 'SIGKILL');
  }
}
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

function queueOf(bundle: number | undefined): IdempotentQueueOptions {
  return { name: 'charges', ...(bundle !== undefined && { bundle: { max: bundle } }) };
}
