import { WorkerHost } from '@nestjs/bullmq';
import type { Job } from 'bullmq';
import { describe, expectTypeOf, it } from 'vitest';
import type { RejectionCause } from './exports/dependencies.js';
import { JOB_METRICS, type OpenMetrics } from './exports/observe.js';
import {
  applied,
  type CurrentOperation,
  type EnqueuedOperation,
  type FallsBack,
  IdempotentJobsModule,
  type IdempotentJobsOptionsFactory,
  IdempotentProcessor,
  type IdempotentQueue,
  type IdempotentQueueOptionsFactory,
  type JobName,
  notApplied,
  type OperationJob,
  type OperationRef,
  type Outcome,
  type OutcomeService,
  type PayloadOf,
  type Reconciles,
  type Reconciliation,
  type ResultOf,
} from './index.js';

// What is tested here is tested by the compiler: `tsc -p libs/idempotent-jobs/tsconfig.spec.json`. Running it only
// shows that it is valid code.

interface Charge {
  readonly orderId: string;
  readonly amount: number;
}
interface Receipt {
  readonly receiptId: string;
}
interface Refund {
  readonly receiptId: string;
  readonly reason: string;
}
interface ChargeJobs {
  charge: { payload: Charge; result: Receipt };
  refund: { payload: Refund; result: boolean };
}

const charge: Charge = { orderId: 'order-17', amount: 500 };
const refund: Refund = { receiptId: 'r-1', reason: 'broken' };
const key = { operationKey: 'charge:order-17:1' };

/** Anything: each of its methods resolves to an empty object. */
const stub: any = new Proxy({}, { get: () => async () => ({}) });

const queue: IdempotentQueue<ChargeJobs> = stub;
const outcomes: OutcomeService = stub;
const operation: CurrentOperation = stub;

describe('the types of a job map', () => {
  it('give names, payloads and results', () => {
    expectTypeOf<JobName<ChargeJobs>>().toEqualTypeOf<'charge' | 'refund'>();
    expectTypeOf<PayloadOf<ChargeJobs, 'charge'>>().toEqualTypeOf<Charge>();
    expectTypeOf<PayloadOf<ChargeJobs>>().toEqualTypeOf<Charge | Refund>();
    expectTypeOf<ResultOf<ChargeJobs, 'refund'>>().toEqualTypeOf<boolean>();
    expectTypeOf<ResultOf<ChargeJobs>>().toEqualTypeOf<Receipt | boolean>();
  });

  it('tell the payloads of a handler’s job apart by its name', () => {
    const amountOf = (job: OperationJob<ChargeJobs>): number => {
      if (job.name === 'refund') {
        expectTypeOf(job.data).toEqualTypeOf<Refund>();
        return 0;
      }
      expectTypeOf(job.data).toEqualTypeOf<Charge>();
      return job.data.amount;
    };
    expectTypeOf(amountOf).returns.toBeNumber();
  });
});

describe('the types of IdempotentQueue<ChargeJobs>', () => {
  it('infer the result from the job’s name', async () => {
    const charged = await queue.enqueue('charge', charge, key);
    expectTypeOf(charged).toEqualTypeOf<EnqueuedOperation<Receipt>>();
    expectTypeOf(charged.duplicate).toEqualTypeOf<boolean | undefined>();
    const refunded = await queue.enqueue('refund', refund, key);
    expectTypeOf(refunded).toEqualTypeOf<EnqueuedOperation<boolean>>();
  });

  it('refuse a payload of another job, a payload with a hole, and a name that is not in the map', async () => {
    // @ts-expect-error a refund is no charge
    await queue.enqueue('charge', refund, key);
    // @ts-expect-error the amount is missing
    await queue.enqueue('charge', { orderId: 'order-17' }, key);
    // @ts-expect-error no such job
    await queue.enqueue('chargeback', charge, key);
    // @ts-expect-error the operation has no key
    await queue.enqueue('charge', charge, {});
  });

  it('check each of many requests against its own name', async () => {
    const many = await queue.enqueueMany([
      { name: 'charge', payload: charge, operationKey: 'a' },
      { name: 'refund', payload: refund, operationKey: 'b' },
    ]);
    expectTypeOf(many).toEqualTypeOf<EnqueuedOperation<Receipt | boolean>[]>();
    // @ts-expect-error a refund is no charge
    await queue.enqueueMany([{ name: 'charge', payload: refund, operationKey: 'a' }]);
    // @ts-expect-error the transaction belongs to all of them
    await queue.enqueueMany([{ name: 'charge', payload: charge, operationKey: 'a', durability: 'queue' }]);
  });

  it('allow everything where the queue’s jobs are not described', async () => {
    const untyped: IdempotentQueue = stub;
    const enqueued = await untyped.enqueue('anything', { any: 'payload' }, key);
    expectTypeOf(enqueued.result).toBeAny();
  });

  it('hold for follow-ups of a handler too', () => {
    operation.enqueue(queue, 'refund', refund, key);
    // @ts-expect-error a charge is no refund
    operation.enqueue(queue, 'refund', charge, key);
    // @ts-expect-error a follow-up commits with the outcome, in no other transaction
    operation.enqueue(queue, 'refund', refund, { ...key, durability: 'queue' });
  });
});

describe('the types of OutcomeService', () => {
  it('infer the result from what enqueue() returned', async () => {
    const charged: EnqueuedOperation<Receipt> = stub;
    expectTypeOf(await outcomes.get(charged)).toEqualTypeOf<Outcome<Receipt> | undefined>();
    const outcome = await (async () => outcomes.wait(charged, { timeoutMs: 5 }))();
    expectTypeOf(outcome).toEqualTypeOf<Outcome<Receipt>>();
    expectTypeOf<(typeof outcome)['result']>().toEqualTypeOf<Receipt | undefined>();
  });

  it('infer it from a queue’s enqueue() directly', async () => {
    const enqueued = await queue.enqueue('refund', refund, key);
    expectTypeOf(outcomes.wait(enqueued)).resolves.toEqualTypeOf<Outcome<boolean>>();
  });

  it('know nothing of the result of an operation that is named by hand', async () => {
    const outcome = await outcomes.get({ tenantId: 'acme', operationKey: 'charge:1' });
    expectTypeOf(outcome).toEqualTypeOf<Outcome | undefined>();
    expectTypeOf<Outcome['result']>().toBeUnknown();
  });

  it('take the result’s type from whoever names the operation', async () => {
    const ref: OperationRef<Receipt> = { tenantId: 'acme', operationKey: 'charge:1' };
    expectTypeOf(outcomes.get(ref)).resolves.toEqualTypeOf<Outcome<Receipt> | undefined>();
    expectTypeOf(
      outcomes.get<Receipt>({ tenantId: 'acme', operationKey: 'charge:1' }),
    ).resolves.toEqualTypeOf<Outcome<Receipt> | undefined>();
  });
});

describe('the types of metrics', () => {
  it('ask for a value of each label that the metric has', () => {
    const metrics: OpenMetrics = { counter: () => stub, histogram: () => stub, close: () => undefined };
    metrics.counter(JOB_METRICS.fenceRejected, { queue: 'charges' });
    // @ts-expect-error the reason is missing
    metrics.counter(JOB_METRICS.deadLetters, { queue: 'charges' });
    // @ts-expect-error a fence knows no reason
    metrics.counter(JOB_METRICS.fenceRejected, { queue: 'charges', reason: 'late' });
    // @ts-expect-error a counter is no histogram
    metrics.histogram(JOB_METRICS.fenceRejected, { queue: 'charges' });
  });
});

describe('the types of @IdempotentProcessor<ChargeJobs>', () => {
  it('accept a class that takes and returns what the jobs do', () => {
    @IdempotentProcessor<ChargeJobs>('charges', { effect: 'keyed' }, { concurrency: 20 })
    class Exact extends WorkerHost {
      async process(job: OperationJob<ChargeJobs>): Promise<Receipt | boolean> {
        return job.name === 'charge' ? { receiptId: job.data.orderId } : job.data.reason !== '';
      }
    }
    @IdempotentProcessor<ChargeJobs>('charges')
    class Generous extends WorkerHost {
      async process(_job: Job, _token?: string, _signal?: AbortSignal): Promise<Receipt> {
        return { receiptId: 'r-1' };
      }
    }
    expectTypeOf(Exact).toBeConstructibleWith();
    expectTypeOf(Generous).toBeConstructibleWith();
  });

  it('accept any processor where the jobs are not described', () => {
    @IdempotentProcessor('charges')
    class Untyped extends WorkerHost {
      async process(job: Job<Charge>): Promise<Receipt> {
        return { receiptId: job.data.orderId };
      }
    }
    expectTypeOf(Untyped).toBeConstructibleWith();
  });

  it('refuse a class that takes another payload', () => {
    // @ts-expect-error the jobs carry charges and refunds, not shipments
    @IdempotentProcessor<ChargeJobs>('charges')
    class Shipments extends WorkerHost {
      async process(_job: Job<{ shipmentId: string; weight: number }>): Promise<Receipt> {
        return { receiptId: 'r-1' };
      }
    }
    expectTypeOf(Shipments).toBeConstructibleWith();
  });

  it('refuse a class that returns another result', () => {
    // @ts-expect-error the jobs return receipts and booleans, not numbers
    @IdempotentProcessor<ChargeJobs>('charges')
    class Counting extends WorkerHost {
      async process(_job: OperationJob<ChargeJobs>): Promise<number> {
        return 7;
      }
    }
    expectTypeOf(Counting).toBeConstructibleWith();
  });

  it('refuse a class that returns nothing', () => {
    // @ts-expect-error the jobs return receipts and booleans
    @IdempotentProcessor<ChargeJobs>('charges')
    class Silent extends WorkerHost {
      async process(_job: OperationJob<ChargeJobs>): Promise<void> {}
    }
    expectTypeOf(Silent).toBeConstructibleWith();
  });

  it('refuse payload classes for jobs that are not in the map', () => {
    class Dto {}
    IdempotentProcessor<ChargeJobs>('charges', { payload: { charge: Dto } });
    // @ts-expect-error no such job
    IdempotentProcessor<ChargeJobs>('charges', { payload: { chargeback: Dto } });
  });

  it('refuse a class that is no WorkerHost', () => {
    // @ts-expect-error a WorkerHost has a worker
    @IdempotentProcessor('charges')
    class Plain {
      async process(): Promise<void> {}
    }
    expectTypeOf(Plain).toBeConstructibleWith();
  });

  it('ask for a reconcile() where the effect is reconciled, and for one that answers with the jobs’ results', () => {
    @IdempotentProcessor<ChargeJobs>('charges', { effect: 'reconciled' })
    class Asking extends WorkerHost implements Reconciles<Receipt> {
      async process(_job: OperationJob<ChargeJobs>): Promise<Receipt> {
        return { receiptId: 'r-1' };
      }
      async reconcile(operation: CurrentOperation): Promise<Reconciliation<Receipt>> {
        return operation.attempt > 1 ? applied({ receiptId: 'r-1' }) : notApplied();
      }
    }
    expectTypeOf(Asking).toBeConstructibleWith();

    // @ts-expect-error there is no reconcile()
    @IdempotentProcessor<ChargeJobs>('charges', { effect: 'reconciled' })
    class Silent extends WorkerHost {
      async process(_job: OperationJob<ChargeJobs>): Promise<Receipt> {
        return { receiptId: 'r-1' };
      }
    }
    expectTypeOf(Silent).toBeConstructibleWith();

    // @ts-expect-error the jobs return receipts and booleans, not numbers
    @IdempotentProcessor<ChargeJobs>('charges', { effect: 'keyed' })
    class Counting extends WorkerHost {
      async process(_job: OperationJob<ChargeJobs>): Promise<Receipt> {
        return { receiptId: 'r-1' };
      }
      reconcile(): Reconciliation<number> {
        return applied(7);
      }
    }
    expectTypeOf(Counting).toBeConstructibleWith();

    class Untrue extends WorkerHost implements Reconciles<Receipt> {
      async process(): Promise<void> {}
      // @ts-expect-error a boolean is no answer
      reconcile(): boolean {
        return true;
      }
    }
    expectTypeOf(Untrue).toBeConstructibleWith();
  });

  it('check that a fallback() returns what the jobs do, and takes the reason', () => {
    @IdempotentProcessor<ChargeJobs>('charges', { dependency: 'gateway' })
    class StandingIn extends WorkerHost implements FallsBack<Receipt> {
      async process(_job: OperationJob<ChargeJobs>): Promise<Receipt> {
        return { receiptId: 'r-1' };
      }
      fallback(_operation: CurrentOperation, reason: RejectionCause): Receipt {
        return { receiptId: reason };
      }
    }
    expectTypeOf(StandingIn).toBeConstructibleWith();

    // @ts-expect-error the jobs return receipts and booleans, not strings
    @IdempotentProcessor<ChargeJobs>('charges', { dependency: 'gateway' })
    class Wrong extends WorkerHost {
      async process(_job: OperationJob<ChargeJobs>): Promise<Receipt> {
        return { receiptId: 'r-1' };
      }
      fallback(): string {
        return 'later';
      }
    }
    expectTypeOf(Wrong).toBeConstructibleWith();
  });

  it('refuse an effect that does not exist', () => {
    // @ts-expect-error no such effect
    IdempotentProcessor('charges', { effect: 'idempotent' });
  });
});

describe('the types of the module', () => {
  it('take options from a factory, a class or a provider that exists', () => {
    class Options implements IdempotentJobsOptionsFactory, IdempotentQueueOptionsFactory {
      createIdempotentJobsOptions() {
        return { leaseMs: 10_000 };
      }
      createIdempotentQueueOptions() {
        return { retention: { completedMs: 86_400_000 } };
      }
    }
    IdempotentJobsModule.forRootAsync({ useFactory: async () => ({ leaseMs: 10_000 }) });
    IdempotentJobsModule.forRootAsync({ useClass: Options });
    IdempotentJobsModule.forRootAsync({ useExisting: Options });
    IdempotentJobsModule.registerQueueAsync({ name: 'charges', useClass: Options });
    // @ts-expect-error a lease is a number of ms
    IdempotentJobsModule.forRootAsync({ useFactory: () => ({ leaseMs: '10 s' }) });
    // @ts-expect-error it gives no settings
    IdempotentJobsModule.registerQueueAsync({ name: 'charges', useClass: class {} });
  });

  it('let a configuration give numbers and names of processors, and nothing that is code', () => {
    IdempotentJobsModule.forRoot({
      processors: { charges: { concurrency: 20, timeoutMs: 5_000, retry: 'charge' } },
    });
    // @ts-expect-error the effect belongs to the class
    IdempotentJobsModule.forRoot({ processors: { charges: { effect: 'natural' } } });
  });
});
