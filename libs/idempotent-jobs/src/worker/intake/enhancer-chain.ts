import { Injectable } from '@nestjs/common';
import { GUARDS_METADATA, INTERCEPTORS_METADATA } from '@nestjs/common/constants.js';
import type { WorkerHost } from '@nestjs/bullmq';
import { ApplicationConfig, ContextIdFactory, ExternalContextCreator } from '@nestjs/core';
import type { Job } from 'bullmq';

/** A processor's `process()`, or the chain of guards and interceptors around it. */
export type ProcessMethod = (job: Job, token?: string, signal?: AbortSignal) => Promise<unknown>;

/**
 * Builds the Nest enhancer chain around a processor's `process()`, context type `'bullmq'`: global guards and
 * interceptors, then those of the class, then those of the method. Exception filters are left out: a filter that
 * swallowed an error would turn a failed job into a completed one.
 */
@Injectable()
export class EnhancerChains {
  readonly #chains = new WeakMap<object, ProcessMethod>();
  readonly #empty = new Map<object, boolean>();

  constructor(
    private readonly contexts: ExternalContextCreator,
    private readonly config: ApplicationConfig,
  ) {}

  /**
   * Whether the chain would contain only the library's own interceptor. A chain costs time on every job, so an empty
   * one is skipped.
   */
  isEmpty(processorClass: object, original: ProcessMethod): boolean {
    const known = this.#empty.get(processorClass);
    if (known !== undefined) return known;
    const isEmpty = this.#isEmpty(processorClass, original);
    this.#empty.set(processorClass, isEmpty);
    return isEmpty;
  }

  #isEmpty(processorClass: object, original: ProcessMethod): boolean {
    const { config } = this;
    const globals = [
      config.getGlobalGuards(),
      config.getGlobalRequestGuards(),
      config.getGlobalInterceptors(),
      config.getGlobalRequestInterceptors(),
    ];
    return (
      globals.every((enhancers) => enhancers.length === 0) &&
      count(GUARDS_METADATA, processorClass) +
        count(GUARDS_METADATA, original) +
        count(INTERCEPTORS_METADATA, original) ===
        0 &&
      // The library's own interceptor is the one.
      count(INTERCEPTORS_METADATA, processorClass) === 1
    );
  }

  /**
   * The chain for an instance, made once. A request-scoped processor has another instance for every job;
   * `requestScopedId` is its provider's id, by which Nest finds the enhancers that were made for that job.
   */
  chainOf(
    instance: WorkerHost,
    original: ProcessMethod,
    requestScopedId: string | undefined,
    job: Job,
  ): ProcessMethod {
    let chain = this.#chains.get(instance);
    if (chain === undefined) {
      chain = this.contexts.create(
        instance,
        original as (...args: unknown[]) => unknown,
        'process',
        undefined,
        undefined,
        requestScopedId === undefined ? undefined : ContextIdFactory.getByRequest(job),
        requestScopedId,
        { interceptors: true, guards: true, filters: false },
        'bullmq',
      ) as ProcessMethod;
      this.#chains.set(instance, chain);
    }
    return chain;
  }
}

function count(metadataKey: string, target: object): number {
  return ((Reflect.getMetadata(metadataKey, target) ?? []) as unknown[]).length;
}
