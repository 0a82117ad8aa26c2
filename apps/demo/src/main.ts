/**
 * `npm run demo`: the same orders and the same faults four times, and what the outside world saw of it.
 *
 * The exit code is 0 only if the variants (c) and (d) have charged and mailed nobody twice, mailed in nobody else's name,
 * lost nothing, and account for every operation; and if (d) has nothing in doubt at the end. 1: they have not. 2: the demo
 * could not be run as asked. 130, 143: interrupted.
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
import { describePromise, keepsPromise } from './verdict/promise.js';
import { table } from './verdict/table.js';

/** With the servers' start and end, all of it stays below three minutes. */
const PATIENCE_MS = 160_000;
/** What has not ended by then is left to its own watchdog, which acts when we are gone. */
const CLEAN_UP_MS = 10_000;

interface Row extends VariantReport {
  readonly name: Variant['name'];
  readonly title: string;
  readonly promised: Variant['promised'];
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
    const { name, title, promised } = variant;
    const report = await runVariant(variant, stream, options, servers, undo, deadline);
    rows.push({ name, title, promised, ...report });
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
  const held = rows.filter(({ promised }) => promised !== 'nothing');
  console.log();
  for (const row of held) console.log(describePromise(row.title, row.promised, row));
  if (options.json)
    console.log(
      JSON.stringify(
        Object.fromEntries(rows.map(({ name, verdict, flush }) => [name, { ...verdict, flush }])),
      ),
    );
  return held.every((row) => keepsPromise(row.promised, row)) ? 0 : 1;
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
