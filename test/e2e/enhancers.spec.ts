import { AsyncResource } from 'node:async_hooks';
import { WorkerHost } from '@nestjs/bullmq';
import {
  type CallHandler,
  type CanActivate,
  Catch,
  type ExceptionFilter,
  type ExecutionContext,
  Injectable,
  type NestInterceptor,
  RequestTimeoutException,
  Scope,
  type Type,
  UseFilters,
  UseGuards,
  UseInterceptors,
} from '@nestjs/common';
import { APP_FILTER, APP_GUARD, APP_INTERCEPTOR } from '@nestjs/core';
import type { Job } from 'bullmq';
import { currentOperation, IdempotentProcessor, PermanentError, TenantContext } from 'nestjs-idempotent-jobs';
import { retry, tap, throwError, timeout } from 'rxjs';
import { describe, expect, it } from 'vitest';
import { useApps } from '../support/apps.js';
import { eventually } from '../support/eventually.js';
import { bullQueue, enqueue, idempotentQueue, lettersOf, settled } from '../support/ledger.js';
import { Gate, processorOf, SHORT_CLOCKS } from '../support/processors.js';
import { BACKENDS } from '../support/scenario.js';

/** How long an interceptor waits, which the claim is a part of. */
const HASTY_MS = 1500;

@Injectable()
class Journal {
  readonly lines: string[] = [];
}

@Injectable()
class SuspensionGuard implements CanActivate {
  constructor(
    private readonly journal: Journal,
    private readonly tenants: TenantContext,
  ) {}

  canActivate(context: ExecutionContext): boolean {
    const [job] = context.getArgs<[Job<{ suspended?: boolean }>]>();
    this.journal.lines.push(`guard ${context.getType<string>()} ${this.tenants.current}`);
    return job.data.suspended !== true;
  }
}

const interceptor = (name: string): Type<NestInterceptor> => {
  @Injectable()
  class JournalInterceptor implements NestInterceptor {
    constructor(private readonly journal: Journal) {}

    intercept(_context: ExecutionContext, next: CallHandler) {
      this.journal.lines.push(`${name} before`);
      return next.handle().pipe(tap(() => this.journal.lines.push(`${name} after`)));
    }
  }
  return JournalInterceptor;
};

const ClassInterceptor = interceptor('class');
const AboveInterceptor = interceptor('above');
const MethodInterceptor = interceptor('method');
const GlobalInterceptor = interceptor('global');

@UseInterceptors(AboveInterceptor)
@IdempotentProcessor('charges', { effect: 'natural' }, SHORT_CLOCKS)
@UseInterceptors(ClassInterceptor)
@UseGuards(SuspensionGuard)
class ChargeProcessor extends WorkerHost {
  constructor(private readonly journal: Journal) {
    super();
  }

  @UseInterceptors(MethodInterceptor)
  process(job: Job, token?: string, signal?: AbortSignal): Promise<unknown> {
    this.journal.lines.push(`handler ${currentOperation().operationKey}`);
    return Promise.resolve({
      name: job.name,
      hasToken: typeof token === 'string',
      isSignal: signal instanceof AbortSignal,
    });
  }
}

@Injectable({ scope: Scope.REQUEST })
class PerJob {
  readonly id = Math.random();
}

@IdempotentProcessor('charges', { effect: 'natural' }, SHORT_CLOCKS)
@UseInterceptors(ClassInterceptor)
@UseGuards(SuspensionGuard)
class RequestScopedProcessor extends WorkerHost {
  constructor(
    private readonly perJob: PerJob,
    private readonly journal: Journal,
  ) {
    super();
  }

  process(_job: Job, _token?: string, signal?: AbortSignal): Promise<unknown> {
    this.journal.lines.push(`handler ${currentOperation().operationKey}`);
    return Promise.resolve({ id: this.perJob.id, isSignal: signal instanceof AbortSignal });
  }
}

describe.each(BACKENDS)('guards and interceptors, on %s', (backend) => {
  const apps = useApps();

  it('guards and interceptors of class and method run around the handler, with injection', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [Journal, ChargeProcessor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({
      result: { name: 'charge', hasToken: true, isSignal: true },
    });
    expect(app.get(Journal).lines).toEqual([
      'guard bullmq acme',
      'class before',
      'above before',
      'method before',
      'handler charge:1',
      'method after',
      'above after',
      'class after',
    ]);
  });

  it("a replay does not call the processor's own interceptors", async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [Journal, ChargeProcessor] });
    const { jobId } = (await enqueue(app, 'charges', 'charge', {}, 'charge:1')) as { jobId: string };
    await settled(app, 'charge:1');
    const job = await bullQueue(app, 'charges').getJob(jobId);
    const journal = app.get(Journal);
    await eventually(
      () => job?.getState(),
      (state) => expect(state).toBe('completed'),
    );
    journal.lines.length = 0;
    await job?.remove();
    await bullQueue(app, 'charges').add('charge', job?.data, { jobId });
    await eventually(
      () => bullQueue(app, 'charges').getJobState(jobId),
      (state) => expect(state).toBe('completed'),
    );
    expect(journal.lines).toEqual(['guard bullmq acme']);
  });

  it('a guard that refuses sends the job to the dead letters; the handler is not called', async () => {
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [Journal, ChargeProcessor] });
    await enqueue(app, 'charges', 'charge', { suspended: true }, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 1 });
    expect(await lettersOf(app)).toMatchObject([
      { reason: 'permanent_error', error: { message: 'Forbidden resource' } },
    ]);
    expect(app.get(Journal).lines).toEqual(['guard bullmq acme']);
  });

  it('global interceptors apply', async () => {
    const providers = [Journal, ChargeProcessor, { provide: APP_INTERCEPTOR, useClass: GlobalInterceptor }];
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await settled(app, 'charge:1');
    await eventually(
      () => app.get(Journal).lines,
      (lines) => expect(lines).toContain('global after'),
    );
    expect(app.get(Journal).lines.slice(0, 3)).toEqual([
      'guard bullmq acme',
      'global before',
      'class before',
    ]);
  });

  it('exception filters stay out, global or of the processor: what it throws is a failure, not an answer', async () => {
    const caught: unknown[] = [];
    @Catch()
    class SwallowingFilter implements ExceptionFilter {
      catch(error: unknown): unknown {
        caught.push(error);
        return 'all is well';
      }
    }
    const processor = processorOf('charges', { effect: 'natural' }, () => {
      throw new PermanentError('no');
    });
    UseFilters(SwallowingFilter)(processor);
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, { provide: APP_FILTER, useClass: SwallowingFilter }],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', error: { message: 'no' } });
    expect(await lettersOf(app)).toMatchObject([{ reason: 'permanent_error' }]);
    expect(caught).toEqual([]);
  });

  it('a global interceptor that times out abandons the attempt; what must not be repeated is not', async () => {
    let calls = 0;
    const gate = new Gate();
    const processor = processorOf('charges', { retry: { attempts: 5, backoff: { baseMs: 10 } } }, () => {
      calls += 1;
      return gate.pass();
    });
    const interceptor = {
      intercept: (_context: ExecutionContext, next: CallHandler) => next.handle().pipe(timeout(HASTY_MS)),
    };
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, { provide: APP_INTERCEPTOR, useValue: interceptor }],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt', attempts: 1 });
    expect(calls).toBe(1);
    gate.open();
  });

  it('a global interceptor that subscribes again gets the same attempt', async () => {
    let calls = 0;
    const processor = processorOf('charges', { effect: 'keyed' }, () => {
      calls += 1;
      throw new PermanentError('no');
    });
    const interceptor = {
      intercept: (_context: ExecutionContext, next: CallHandler) => next.handle().pipe(retry(2)),
    };
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, { provide: APP_INTERCEPTOR, useValue: interceptor }],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'dead', attempts: 1 });
    expect(calls).toBe(1);
  });

  it('a global interceptor that goes on in the context of another job runs no handler there', async () => {
    const ran: [inFrameOf: string | undefined, job: string | undefined][] = [];
    const processor = processorOf('charges', { effect: 'keyed', retry: { attempts: 1 } }, (job) => {
      ran.push([app.get(TenantContext).current, job.data as string]);
    });
    let first: AsyncResource | undefined;
    const astray: NestInterceptor = {
      intercept: (_context, next) => {
        first ??= new AsyncResource('the first job');
        return first.runInAsyncScope(() => next.handle());
      },
    };
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, { provide: APP_INTERCEPTOR, useValue: astray }],
    });
    const queue = idempotentQueue(app, 'charges');
    await queue.enqueue('charge', 'of acme', { tenantId: 'acme', operationKey: 'charge:1' });
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'completed' });
    await queue.enqueue('charge', 'of globex', { tenantId: 'globex', operationKey: 'charge:1' });
    expect(await settled(app, 'charge:1', 'globex')).toMatchObject({ status: 'dead' });
    expect(ran).toEqual([['acme', 'of acme']]);
    expect(await lettersOf(app)).toMatchObject([
      {
        tenant_id: 'globex',
        reason: 'retries_exhausted',
        error: { message: expect.stringMatching(/asynchronous context of its job/) },
      },
    ]);
  });

  it('an interceptor of the processor that times out leaves an unrepeatable effect in doubt', async () => {
    let calls = 0;
    const gate = new Gate();
    @Injectable()
    class TimeoutInterceptor implements NestInterceptor {
      intercept(_context: ExecutionContext, next: CallHandler) {
        return next
          .handle()
          .pipe(timeout({ first: HASTY_MS, with: () => throwError(() => new RequestTimeoutException()) }));
      }
    }
    const processor = processorOf('charges', {}, () => {
      calls += 1;
      return gate.pass();
    });
    UseInterceptors(TimeoutInterceptor)(processor);
    const { app } = await apps.fresh(backend, { queues: ['charges'], providers: [processor] });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    expect(await settled(app, 'charge:1')).toMatchObject({ status: 'in_doubt', attempts: 1 });
    expect(calls).toBe(1);
    gate.open();
  });

  it('a guard that never answers does not hold up a shutdown, and its job is run by the next worker', async () => {
    const never = { canActivate: () => new Promise<boolean>(() => undefined) };
    const processor = processorOf('charges', {}, () => 'done');
    const { app, place } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [processor, { provide: APP_GUARD, useValue: never }],
      jobs: { shutdown: { drainMs: 200, closeMs: 2000 } },
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await eventually(
      () => bullQueue(app, 'charges').getActiveCount(),
      (active) => expect(active).toBe(1),
    );
    await apps.close(app);
    const heir = await apps.beside(place, {
      queues: ['charges'],
      providers: [processorOf('charges', {}, () => 'done')],
    });
    expect(await settled(heir, 'charge:1')).toMatchObject({ status: 'completed', attempts: 1 });
  });

  it('a request-scoped processor is another instance for every job, with guards, interceptors and signal', async () => {
    const { app } = await apps.fresh(backend, {
      queues: ['charges'],
      providers: [Journal, PerJob, RequestScopedProcessor],
    });
    await enqueue(app, 'charges', 'charge', {}, 'charge:1');
    await enqueue(app, 'charges', 'charge', {}, 'charge:2');
    const [first, second] = [await settled(app, 'charge:1'), await settled(app, 'charge:2')] as {
      result: { id: number; isSignal: boolean };
    }[];
    expect(first?.result.isSignal).toBe(true);
    expect(first?.result.id).not.toBe(second?.result.id);
    expect(app.get(Journal).lines).toContain('guard bullmq acme');
    expect(app.get(Journal).lines).toContain('class after');
  });
});
