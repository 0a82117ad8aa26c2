/**
 * `npm start`: runs the whole shop on this machine and leaves nothing behind. It starts its own Postgres and the
 * simulated services (payment gateway and mailbox), stocks the shelves of two tenants and prints how to try it.
 */
import { startPostgres } from 'local-servers';
import { startSimulator } from 'simulator';
import { DataSource } from 'typeorm';
import { boot } from './boot.js';
import { numberOf } from './environment.js';
import { stockUp } from './inventory/stock.js';
import { invitation } from './invitation.js';
import { settingsFrom } from './settings.js';

const TENANTS = ['acme', 'globex'];
const STOP_MS = 15_000;

/** The started parts, which are stopped in reverse order. */
const started: { stop(): Promise<unknown> }[] = [];
let stopping: Promise<void> | undefined;

async function stopAll(): Promise<void> {
  for (const part of started.toReversed()) await part.stop().catch((error: unknown) => console.error(error));
}

function end(exitCode: number): void {
  // A second Ctrl-C exits at once; the servers end with this process in any case.
  if (stopping !== undefined) process.exit(exitCode);
  setTimeout(() => process.exit(exitCode), STOP_MS).unref();
  stopping = stopAll();
  void stopping.finally(() => process.exit(exitCode));
}
process.on('SIGINT', () => end(0));
process.on('SIGTERM', () => end(0));

async function keep<T extends { stop(): Promise<unknown> }>(starting: Promise<T>): Promise<T> {
  const part = await starting;
  started.push(part);
  // Ctrl-C came while this part was starting.
  if (stopping !== undefined) await part.stop();
  return part;
}

try {
  const postgres = await keep(startPostgres());
  const simulator = await keep(startSimulator());
  const settings = settingsFrom({
    ...process.env,
    DATABASE_URL: await postgres.createDatabase('shop'),
    GATEWAY_URL: simulator.http,
    SMTP_URL: simulator.smtp,
    MAILBOX_URL: simulator.http,
    WORKER_NAME: 'payments',
  });
  const { app, url = '' } = await boot(settings, numberOf('PORT', 3000));
  started.push({ stop: () => app.close() });
  const shelves = app.get(DataSource);
  for (const tenant of TENANTS) {
    await stockUp(shelves.manager, tenant, [
      { sku: 'teapot', unitPriceCents: 1999, currency: 'EUR', available: 100 },
      { sku: 'last-cup', unitPriceCents: 499, currency: 'EUR', available: 1 },
    ]);
  }
  console.log(invitation(url, simulator.http, TENANTS));
} catch (error) {
  if (stopping === undefined) {
    console.error(error);
    end(1);
  }
}
