import { Injectable, Logger, Optional } from '@nestjs/common';
import { messageOf } from '../operation/message-of.js';
import { printable } from './printable.js';
import { Repeats } from './repeats.js';

/**
 * What the library logs besides events. One instance per application. Quoted values are shown on one line, with invisible
 * characters escaped.
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

  /** Logs a failure that will be retried. Repeats of the same message are logged now and then, with their number. */
  readonly trouble = (message: string, error?: unknown): void =>
    this.#repeats.say(error === undefined ? message : `${message}: ${messageOf(error)}`);

  /** Writes the repeats that are still held back. */
  flush(): void {
    this.#repeats.flush();
  }
}
