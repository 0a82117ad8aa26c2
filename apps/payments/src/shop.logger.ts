import { ConsoleLogger } from '@nestjs/common';
import type { Settings } from './settings.js';

/** The contexts in which Nest logs its own start. */
const STARTING = new Set(['NestFactory', 'InstanceLoader', 'RoutesResolver', 'RouterExplorer']);

/**
 * Logs what happens to orders, one line each. Nest's start is left out, and so is `debug`, that jobs were enqueued or
 * started: each of them later logs a line when it is completed, retried, in doubt or dead.
 */
export class ShopLogger extends ConsoleLogger {
  constructor({ workerName, logs }: Settings) {
    super({
      prefix: workerName,
      colors: process.stdout.isTTY ?? false,
      logLevels: logs === 'all' ? ['log', 'warn', 'error', 'fatal'] : ['warn', 'error', 'fatal'],
    });
  }

  override log(message: unknown, ...rest: unknown[]): void {
    const context = rest.at(-1);
    if (typeof context !== 'string' || !STARTING.has(context)) super.log(message, ...rest);
  }
}
