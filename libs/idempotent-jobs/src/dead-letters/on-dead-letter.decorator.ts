import 'reflect-metadata';
import { ConfigurationError } from '../operation/errors.js';
import type { DeadLetterMessage } from '../operation/dead-letter-message.js';

/** What the decorator leaves on a prototype: one entry per method and queue. */
export interface LetterHandlerDeclaration {
  readonly method: string | symbol;
  /** Undefined: every registered queue. */
  readonly queue: string | undefined;
}

const LETTER_HANDLERS = Symbol('nestjs-idempotent-jobs:letter-handlers');

/**
 * Calls a provider's method for each dead letter of a queue, or of every registered queue, to alert whoever looks
 * after it.
 *
 * ```ts
 * @Injectable()
 * export class Alerts {
 *   @OnDeadLetter('charges')
 *   async page(letter: DeadLetterMessage): Promise<void> { … }
 * }
 * ```
 *
 * Durable: the message waits on the dead-letter queue until a process that has the handler takes it, and is told again
 * when that process dies, or when the handler throws: ten times, over about nine minutes; after that it stays failed on
 * the dead-letter queue. At least once, so a handler may see a letter twice. Of several handlers of a letter the
 * process that called them calls only those again that failed; another process calls all. The method runs in the letter's tenant frame, or in none if the letter has no tenant.
 *
 * Processes share the letters of a queue: handlers that must all hear of a letter belong into the same process.
 *
 * @throws ConfigurationError on a static method or a property; and at boot for a queue that is not registered, whose
 *   dead-letter queue has a `@Processor()` too, or for a provider that has no single instance (request or transient
 *   scope, controllers)
 */
export function OnDeadLetter(
  queue?: string,
): <Handler extends (letter: DeadLetterMessage) => unknown>(
  target: object,
  method: string | symbol,
  descriptor: TypedPropertyDescriptor<Handler>,
) => void {
  return (target, method, descriptor) => {
    if (typeof target === 'function') {
      throw new ConfigurationError(
        `@OnDeadLetter() on ${target.name}.${String(method)}: static methods have no provider to be called on. Make it a method of a provider.`,
      );
    }
    if (typeof descriptor?.value !== 'function') {
      throw new ConfigurationError(
        `@OnDeadLetter() on ${target.constructor.name}.${String(method)}: only methods can be told of dead letters.`,
      );
    }
    Reflect.defineMetadata(LETTER_HANDLERS, [...letterHandlersOf(target), { method, queue }], target);
  };
}

/** The handlers that a class, or what it extends, declares. */
export function letterHandlersOf(prototype: object): readonly LetterHandlerDeclaration[] {
  return (Reflect.getMetadata(LETTER_HANDLERS, prototype) ?? []) as LetterHandlerDeclaration[];
}
