import {
  PROCESSOR_DECLARATION,
  type ProcessorDeclaration,
  type IdempotentProcessorOptions,
} from '../rules/processor.options.js';
import 'reflect-metadata';
import { Inject } from '@nestjs/common';
import { INTERCEPTORS_METADATA } from '@nestjs/common/constants.js';
import { Processor, type WorkerHost } from '@nestjs/bullmq';
import type { WorkerOptions } from 'bullmq';
import { backoffStrategy } from '../../bullmq/error-for-bullmq.js';
import { ConfigurationError, UsageError } from '../../operation/errors.js';
import type { AnyJobs, JobMap, JobName, OperationJob, ResultOf } from '../../operation/job.js';
import { IdempotencyInterceptor } from '../intake/idempotency.interceptor.js';
import type { ProcessMethod } from '../intake/enhancer-chain.js';
import type { FallsBack, Reconciles } from '../attempt/current-operation.js';
import { ProcessorHost } from './processor-host.js';
import type { PayloadClass } from '../rules/validate-payload.js';

/**
 * A class that the decorator accepts: a WorkerHost whose `process` fits the payloads and results of the queue's jobs,
 * and whose `reconcile` and `fallback`, if it has them, return the same results.
 */
export type ProcessorClass<M extends JobMap<M>, Means = unknown> = new (...args: any[]) => WorkerHost & {
  process(job: OperationJob<M>, token?: string, signal?: AbortSignal): Promise<ResultOf<M>>;
} & Partial<Reconciles<ResultOf<M>> & FallsBack<ResultOf<M>>> &
  Means;

/** BullMQ's worker options. The connection defaults to the queue's. */
export type ProcessorWorkerOptions = Omit<WorkerOptions, 'connection'> &
  Partial<Pick<WorkerOptions, 'connection'>>;

/** Options whose payload classes fit the queue's jobs. */
export type ProcessorOptionsFor<M extends JobMap<M>> = Omit<IdempotentProcessorOptions, 'payload'> & {
  readonly payload?: PayloadClass | { readonly [N in JobName<M>]?: PayloadClass };
};

/**
 * Makes a `WorkerHost` an idempotent processor of a queue. Replaces `@Processor()`.
 *
 * ```ts
 * @IdempotentProcessor<ChargeJobs>('charges', { effect: 'keyed', payload: ChargeDto, timeoutMs: 10_000 }, { concurrency: 20 })
 * export class ChargeProcessor extends WorkerHost {
 *   async process(job: Job<ChargeDto>): Promise<Receipt> { … }
 * }
 * ```
 *
 * Guards and interceptors on the class or on `process` work, with injection: guards run before the ledger is asked,
 * interceptors only when the handler runs. `workerOptions` are BullMQ's. `process` may take the job, BullMQ's token and
 * an AbortSignal that is aborted when the attempt is over.
 */
export function IdempotentProcessor<M extends JobMap<M> = AnyJobs>(
  queue: string,
  options: ProcessorOptionsFor<M> & { readonly effect: 'reconciled' },
  workerOptions?: ProcessorWorkerOptions,
): (target: ProcessorClass<M, Reconciles<ResultOf<M>>>) => void;
export function IdempotentProcessor<M extends JobMap<M> = AnyJobs>(
  queue: string,
  options?: ProcessorOptionsFor<M>,
  workerOptions?: ProcessorWorkerOptions,
): (target: ProcessorClass<M>) => void;
export function IdempotentProcessor<M extends JobMap<M> = AnyJobs>(
  queue: string,
  options: ProcessorOptionsFor<M> = {},
  workerOptions: ProcessorWorkerOptions = {},
): (target: ProcessorClass<M>) => void {
  return (target) => {
    const prototype = target.prototype as { process?: unknown; reconcile?: unknown; fallback?: unknown };
    if (typeof prototype.process !== 'function') {
      throw new ConfigurationError(
        `@IdempotentProcessor("${queue}") on ${target.name}: the class needs a process() method; extend WorkerHost.`,
      );
    }
    const declaration: ProcessorDeclaration = {
      queue,
      options: options as IdempotentProcessorOptions,
      isStarted: workerOptions.autorun !== false,
      canReconcile: typeof prototype.reconcile === 'function',
      hasFallback: typeof prototype.fallback === 'function',
      limitsStalls: workerOptions.maxStalledCount !== undefined,
    };
    Reflect.defineMetadata(PROCESSOR_DECLARATION, declaration, target);
    prependInterceptor(target);
    Inject(ProcessorHost)(target.prototype, HOST);
    prototype.process = wrap(target.name, prototype.process as ProcessMethod);
    // The library starts the worker once the application is up, outside of any request's frame.
    Processor(queue, {
      ...workerOptions,
      autorun: false,
      ...(options.pauseQueue === true && {
        limiter: workerOptions.limiter ?? UNLIMITED,
        maximumRateLimitDelay: workerOptions.maximumRateLimitDelay ?? LOOKS_AGAIN_MS,
      }),
      settings: { ...workerOptions.settings, backoffStrategy },
    })(target);
  };
}

/** BullMQ's `rateLimit()` stops only queues that have a limit, so they get one that is never reached. */
export const UNLIMITED = { max: 1_000_000_000, duration: 1000 };

/** A worker notices at most this late, in ms, that a limit was lifted before its end. BullMQ's default is 30 s. */
const LOOKS_AGAIN_MS = 1_000;

const HOST = Symbol('nestjs-idempotent-jobs:host');

/**
 * BullMQ makes an AbortSignal for each job whose function declares three parameters. This one declares two: the handler's
 * signal is the attempt's own, which is made when it is asked for.
 */
function wrap(className: string, original: ProcessMethod): ProcessMethod {
  function process(
    this: WorkerHost & { [HOST]?: ProcessorHost },
    job: never,
    token?: string,
  ): Promise<unknown> {
    const host = this[HOST];
    if (host === undefined) {
      throw new UsageError(
        `${className}.process() was called on an instance that Nest did not create, so it has no ledger. Provide the class itself ({ provide, useClass }), not an instance of your own.`,
      );
    }
    return host.handle(this, original, job, token);
  }
  // Nest looks for guards and interceptors of a method on the function it finds on the prototype.
  for (const key of Reflect.getMetadataKeys(original)) {
    Reflect.defineMetadata(key, Reflect.getMetadata(key, original), process);
  }
  return process as ProcessMethod;
}

/**
 * Puts the library's interceptor first, wherever the application's `@UseInterceptors` stands: the others see attempts,
 * not deliveries.
 */
function prependInterceptor(target: object): void {
  const others = (Reflect.getMetadata(INTERCEPTORS_METADATA, target) ?? []) as unknown[];
  const interceptors = [
    IdempotencyInterceptor,
    ...others.filter((other) => other !== IdempotencyInterceptor),
  ];
  Reflect.defineMetadata(INTERCEPTORS_METADATA, interceptors, target);
}
