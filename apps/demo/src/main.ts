/**
 * `npm run demo`: the same orders and the same faults three times, and what the outside world saw of it.
 *
 * The exit code is 0 only if variant (c) has charged and mailed nobody twice, mailed in nobody else's name, lost nothing,
 * and accounts for every operation. 1: it has not. 2: the demo could not be run as asked. 130, 143: interrupted.
 */
import { readOptions, USAGE, UsageError } from './options.js';
import { describeFlush } from './run/flush.js';
import { runVariant, type VariantReport } from './run/run-variant.js';
import { startServers } from './servers/servers.js';
import { UndoList } from './servers/undo-list.js';
import { orderStream } from './stream/order-stream.js';
import { VARIANTS } from './variants/variants.js';
import type { Variant } from './variants/variant.js';
import { describeShare } from './verdict/fault-share.js';
import { table } from './verdict/table.js';

/** With the servers' start and end, all of it stays below two minutes. */
const PATIENCE_MS = 105_000;
/** What has not ended by then is left to its own watchdog, which acts when we are gone. */
const CLEAN_UP_MS = 10_000;

interface Row extends VariantReport {
  readonly name: Variant['name'];
  readonly title: string;
}

const undo = new UndoList();

function interrupt(exitCode: number): void {
  if (undo.isClosed) process.exit(exitCode);
  process.stderr.write('\nInterrupted, cleaning up ...\n');
  // Whatever is still talking to a server sees its connection break off; that must not cut the cleaning up short.
  process.on('uncaughtException', () => undefined);
  setTimeout(() => process.exit(exitCode), CLEAN_UP_MS);
  void undo.close().finally(() => process.exit(exitCode));
}
process.on('SIGINT', () => interrupt(130));
process.on('SIGTERM', () => interrupt(143));

async function demo(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  const endOfPatience = Date.now() + PATIENCE_MS;
  const stream = orderStream(options.seed, options.orders);
  const servers = await startServers(options, undo);
  const rows: Row[] = [];
  for (const [index, variant] of VARIANTS.entries()) {
    // Each may take its share of what is left: one that hangs does not take the others' time.
    const deadline = Date.now() + (endOfPatience - Date.now()) / (VARIANTS.length - index);
    const report = await runVariant(variant, stream, options, servers, undo, deadline);
    rows.push({ name: variant.name, title: variant.title, ...report });
  }
  await undo.close();
  console.log(
    `\n${options.orders} orders of 5 tenants (${stream.sequence.length - options.orders} placed twice), seed ${options.seed}, queues on ${options.backend}\n`,
  );
  console.log(table(rows));
  console.log();
  for (const { title, crash, flush, faults, unrest } of rows) {
    console.log(
      `${title}: ${describeShare(faults)} suffered a fault; ${crash.worker} (pid ${crash.pid}) was killed while ${crash.orderId} was being charged`,
    );
    if (flush !== undefined) console.log(`  ${describeFlush(flush)}`);
    if (unrest !== undefined) console.log(`  It did not come to rest: ${unrest}`);
  }
  const last = rows.at(-1) as Row;
  console.log(`\n${summary(last)}`);
  if (options.json)
    console.log(
      JSON.stringify(
        Object.fromEntries(rows.map(({ name, verdict, flush }) => [name, { ...verdict, flush }])),
      ),
    );
  return keepsItsPromise(last) ? 0 : 1;
}

function keepsItsPromise({ verdict, unrest }: VariantReport): boolean {
  const { duplicateCharges, duplicateMails, wrongTenantMails, lost } = verdict;
  return unrest === undefined && duplicateCharges + duplicateMails + wrongTenantMails + lost === 0;
}

function summary(report: Row): string {
  const { inDoubt, deadLetters } = report.verdict;
  if (!keepsItsPromise(report)) return `${report.title} has BROKEN its promise: see its row above.`;
  return (
    `${report.title}: nothing twice, nothing in a foreign name, nothing lost. ` +
    `In doubt: ${inDoubt} receipts that the mail server took without saying so, or whose worker died: a person decides, the library never guesses. ` +
    `Dead letters: ${deadLetters}.`
  );
}

try {
  process.exitCode = await demo(process.argv.slice(2));
} catch (error) {
  // Ctrl-C pulls the rug from under whatever is running; that is not worth a word.
  if (!undo.isClosed) {
    console.error(error instanceof UsageError ? `${error.message}\n\n${USAGE}` : error);
    process.exitCode = 2;
    await undo.close();
  }
}
