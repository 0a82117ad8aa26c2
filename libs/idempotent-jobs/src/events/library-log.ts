import { Injectable, Logger, Optional } from '@nestjs/common';
import { messageOf } from '../operation/message-of.js';
import { printable } from './printable.js';
import { Repeats } from './repeats.js';

/**
 * What the library says in the application's log besides events. One for each application. Whatever it quotes is one
 * line, with what cannot be seen escaped.
 */
@Injectable()
export class LibraryLog {
  readonly #repeats = new Repeats((line) => this.warn(line));

  constructor(
    @Optional() private readonly logger: Pick<Logger, 'warn' | 'error'> = new Logger('IdempotentJobs'),
  ) {}

  warn(message: string): void {
    this.logger.warn(printable(message));
  }

  error(message: string): void {
    this.logger.error(printable(message));
  }

  /** Tells of something that failed and that is tried again: the same thing once in a while, with how often it was. */
  readonly trouble = (message: string, error?: unknown): void =>
    this.#repeats.say(error === undefined ? message : `${message}: ${messageOf(error)}`);

  /** Writes what was held back. */
  flush(): void {
    this.#repeats.flush();
  }
}
