import { randomUUID } from 'node:crypto';
import { WorkerHost } from '@nestjs/bullmq';
import type { Type } from '@nestjs/common';
import type { Job } from 'bullmq';
import {
  type CurrentOperation,
  currentOperation,
  IdempotentProcessor,
  type IdempotentProcessorOptions,
  type ProcessorWorkerOptions,
  type Reconciliation,
} from 'nestjs-idempotent-jobs';
import type { RejectionCause } from 'nestjs-idempotent-jobs/dependencies';

/** What a scripted processor does for a job. */
export type Handler = (job: Job, operation: CurrentOperation, signal: AbortSignal) => unknown;

/** Worker options with short clocks, so that tests of stalls and lost locks end in seconds. */
export const SHORT_CLOCKS: ProcessorWorkerOptions = {
  concurrency: 10,
  lockDuration: 2000,
  stalledInterval: 500,
};

/** An idempotent processor that does what the test says. */
export function processorOf(
  queue: string,
  options: IdempotentProcessorOptions,
  handler: Handler,
  workerOptions: ProcessorWorkerOptions = SHORT_CLOCKS,
): Type<WorkerHost> {
  @IdempotentProcessor(queue, options, workerOptions)
  class ScriptedProcessor extends WorkerHost {
    async process(job: Job, _token?: string, signal?: AbortSignal): Promise<unknown> {
      return handler(job, currentOperation(), signal as AbortSignal);
    }
  }
  return ScriptedProcessor;
}

/** One that can be asked whether the effect of an attempt happened. */
export function reconcilingProcessorOf(
  queue: string,
  options: IdempotentProcessorOptions,
  handler: Handler,
  reconcile: (operation: CurrentOperation) => unknown,
  workerOptions: ProcessorWorkerOptions = SHORT_CLOCKS,
): Type<WorkerHost> {
  @IdempotentProcessor(queue, options, workerOptions)
  class ReconcilingProcessor extends WorkerHost {
    async process(job: Job, _token?: string, signal?: AbortSignal): Promise<unknown> {
      return handler(job, currentOperation(), signal as AbortSignal);
    }

    async reconcile(operation: CurrentOperation): Promise<Reconciliation> {
      // What tests answer with need not be what the type allows.
      return reconcile(operation) as Promise<Reconciliation>;
    }
  }
  return ReconcilingProcessor;
}

/** One with something that stands in for its dependency. */
export function fallingBackProcessorOf(
  queue: string,
  options: IdempotentProcessorOptions,
  handler: Handler,
  fallback: (operation: CurrentOperation, reason: RejectionCause) => unknown,
  workerOptions: ProcessorWorkerOptions = SHORT_CLOCKS,
): Type<WorkerHost> {
  @IdempotentProcessor(queue, options, workerOptions)
  class FallingBackProcessor extends WorkerHost {
    async process(job: Job, _token?: string, signal?: AbortSignal): Promise<unknown> {
      return handler(job, currentOperation(), signal as AbortSignal);
    }

    async fallback(operation: CurrentOperation, reason: RejectionCause): Promise<unknown> {
      return fallback(operation, reason);
    }
  }
  return FallingBackProcessor;
}

/** For cases that share an application: each has a tenant of its own, whose operations are handled as the case says. */
export class Scripts {
  readonly #handlers = new Map<string, Handler>();

  /** What the processors of the application do. */
  readonly handler: Handler = (job, operation, signal) =>
    this.#handlers.get(operation.tenantId)?.(job, operation, signal);

  /** A tenant that nobody else has, whose operations are handled so. */
  tenantWith(handler: Handler): string {
    const tenantId = `tenant-${randomUUID()}`;
    this.#handlers.set(tenantId, handler);
    return tenantId;
  }
}

/** Lets a test hold a handler and let it go. */
export class Gate {
  readonly #opened: Promise<void>;
  open!: () => void;
  #arrived!: () => void;
  /** Resolves when somebody waits at the gate. */
  readonly arrival: Promise<void>;

  constructor() {
    this.#opened = new Promise((resolve) => (this.open = resolve));
    this.arrival = new Promise((resolve) => (this.#arrived = resolve));
  }

  pass(): Promise<void> {
    this.#arrived();
    return this.#opened;
  }
}

/** Who the operation of a plain job is: for tests that deliver one operation by several jobs. */
export const identifyPlain = (job: Job): { tenantId: string; operationKey: string } => ({
  tenantId: (job.data as { tenant: string }).tenant,
  operationKey: (job.data as { key: string }).key,
});
