import type { SimulatorClient } from 'simulator';

/** On a terminal the line is rewritten; elsewhere, as in a log, a new one now and then is enough. */
const REWRITTEN_EVERY_MS = 250;
const WRITTEN_EVERY_MS = 2_000;

/** A line on stderr that says what is going on, until it is stopped. */
export function showProgress(title: string, orders: number, simulator: SimulatorClient): () => void {
  const isTerminal = process.stderr.isTTY;
  const startedAt = Date.now();
  const write = async (): Promise<void> => {
    const entries = await simulator.ledger();
    const effects = entries.filter(({ effect }) => effect);
    const charges = effects.filter(({ service }) => service === 'charge').length;
    const seconds = ((Date.now() - startedAt) / 1000).toFixed(0).padStart(2);
    const line = `${title.padEnd(30)} ${seconds} s  ${charges} charges, ${effects.length - charges} mails of ${orders} orders, ${entries.length} calls`;
    process.stderr.write(isTerminal ? `\r\u001B[K${line}` : `${line}\n`);
  };
  const timer = setInterval(
    // The simulator may be gone by now; then there is nothing to show.
    () => void write().catch(() => undefined),
    isTerminal ? REWRITTEN_EVERY_MS : WRITTEN_EVERY_MS,
  );
  return () => {
    clearInterval(timer);
    if (isTerminal) process.stderr.write('\r\u001B[K');
  };
}
