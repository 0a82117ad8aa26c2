import 'reflect-metadata';
import { Inject } from '@nestjs/common';
import { ConfigurationError, UsageError } from '../operation/errors.js';
import type { CallOptions } from './call.options.js';
import { IdempotencyService } from './idempotency.service.js';

/** As for {@link IdempotencyService.once}, but the key and the input are functions of the arguments. */
export interface IdempotentEffectOptions<Args extends unknown[]> extends Omit<
  CallOptions,
  'input' | 'tenantId'
> {
  /** Names the effect of a call with these arguments, e.g. `(order) => 'refund:' + order.id`. */
  readonly key: (...args: Args) => string;
  /** The request, as JSON; the same key with another input is a conflict. Default: the key alone identifies the request. */
  readonly input?: (...args: Args) => unknown;
}

/**
 * Guards a method of any provider that Nest makes: it is called once for the surrounding frame's tenant and the key of
 * its arguments; see {@link IdempotencyService.once}. The method must return a promise.
 *
 * ```ts
 * @IdempotentEffect({ key: (orderId: string) => `refund:${orderId}`, effect: 'keyed' })
 * async refund(orderId: string): Promise<Refund> { … currentOperation().idempotencyKey … }
 * ```
 */
export function IdempotentEffect<Args extends any[]>({
  key,
  input,
  ...options
}: IdempotentEffectOptions<Args>) {
  return <T>(
    prototype: object,
    name: string | symbol,
    descriptor: TypedPropertyDescriptor<(...args: Args) => Promise<T>>,
  ): void => {
    const original = descriptor.value;
    if (typeof original !== 'function' || typeof key !== 'function') {
      throw new ConfigurationError(
        `@IdempotentEffect() on ${prototype.constructor.name}.${String(name)}: it needs a method, and a key function: { key: (...args) => '…' }.`,
      );
    }
    Inject(IdempotencyService)(prototype, SERVICE);
    const guarded = async function (this: { [SERVICE]?: IdempotencyService }, ...args: Args): Promise<T> {
      const service = this[SERVICE];
      if (service === undefined) {
        throw new UsageError(
          `${prototype.constructor.name}.${String(name)}() was called on an instance that Nest did not create, so it has no ledger.`,
        );
      }
      const call = async (): Promise<T> => original.apply(this, args);
      return service.once(key(...args), call, { ...options, ...(input && { input: input(...args) }) });
    };
    // Keeps the metadata (routes, guards and the like) that other decorators have set on the method.
    for (const known of Reflect.getMetadataKeys(original))
      Reflect.defineMetadata(known, Reflect.getMetadata(known, original), guarded);
    Object.defineProperty(guarded, 'name', { value: original.name, configurable: true });
    descriptor.value = guarded;
  };
}

const SERVICE = Symbol('nestjs-idempotent-jobs:service');
