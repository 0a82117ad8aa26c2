import { ConsoleLogger } from '@nestjs/common';
import type { Settings } from './settings.js';

/** What Nest tells about its own start. */
const STARTING = new Set(['NestFactory', 'InstanceLoader', 'RoutesResolver', 'RouterExplorer']);

/**
 * Tells what happens to orders, one line each. Nest's start is left out, and so are jobs that were enqueued or started,
 * which are `debug`: each of them will be completed, retried, in doubt or dead, and that is said.
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
