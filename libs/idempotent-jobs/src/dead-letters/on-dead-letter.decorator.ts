import 'reflect-metadata';
import { ConfigurationError } from '../operation/errors.js';
import type { DeadLetterMessage } from '../operation/dead-letter-message.js';

/** What the decorator leaves on a prototype: one entry per method and queue. */
export interface LetterHandlerDeclaration {
  readonly method: string | symbol;
  /** Undefined means every registered queue. */
  readonly queue: string | undefined;
}

const LETTER_HANDLERS = Symbol('nestjs-idempotent-jobs:letter-handlers');

/**
 * Calls a provider's method for each dead letter of a queue, or of every registered queue, for example to alert the
 * operator.
 *
 * ```ts
 * @Injectable()
 * export class Alerts {
 *   @OnDeadLetter('charges')
 *   async page(letter: DeadLetterMessage): Promise<void> { … }
 * }
 * ```
 *
 * Notifications are durable. The message waits on the dead-letter queue until a process that has the handler takes it. It
 * is delivered again when that process dies, or when the handler throws: ten times, over about nine minutes; after that
 * it stays failed on the dead-letter queue. Delivery is at least once, so a handler may see a letter twice. When several
 * handlers are notified of a letter and one fails, the same process calls only the failed one again; another process
 * calls all. The method runs in the letter's tenant frame, or in none if the letter has no tenant.
 *
 * Processes share the letters of a queue: handlers that must all see every letter belong in the same process.
 *
 * @throws ConfigurationError on a static method or a property; at boot for a queue that is not registered or whose
 *   dead-letter queue has a `@Processor()` too, and for a provider that has no single instance (request or transient
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

/** The handlers that a class declares or inherits. */
export function letterHandlersOf(prototype: object): readonly LetterHandlerDeclaration[] {
  return (Reflect.getMetadata(LETTER_HANDLERS, prototype) ?? []) as LetterHandlerDeclaration[];
}
