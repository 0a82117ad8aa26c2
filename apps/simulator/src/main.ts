/**
 * The simulator as a process: `node apps/simulator/dist/main.js`. Prints where it can be reached as one line of JSON when
 * it is ready, and nothing else on stdout. Configured by the environment: SIMULATOR_HTTP_PORT, SIMULATOR_SMTP_PORT,
 * SIMULATOR_LEDGER, SIMULATOR_EXIT_WITH_PARENT.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openSimulator } from './simulator.js';

const { SIMULATOR_HTTP_PORT, SIMULATOR_SMTP_PORT, SIMULATOR_LEDGER, SIMULATOR_EXIT_WITH_PARENT } =
  process.env;

/** Ours, and gone with us; a ledger that was asked for stays. */
const temporary = SIMULATOR_LEDGER ? undefined : mkdtempSync(join(tmpdir(), 'simulator-'));
process.once('exit', () => temporary && rmSync(temporary, { recursive: true, force: true }));

const simulator = await openSimulator({
  httpPort: Number(SIMULATOR_HTTP_PORT || 0),
  smtpPort: Number(SIMULATOR_SMTP_PORT || 0),
  ledger: SIMULATOR_LEDGER || join(temporary!, 'ledger.jsonl'),
});

let isEnding = false;
async function end(): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  await simulator.close();
  process.exit(0);
}

process.once('SIGTERM', () => void end());
process.once('SIGINT', () => void end());
if (SIMULATOR_EXIT_WITH_PARENT === '1') {
  // The parent holds the other end of our stdin, so that its end, of whatever kind, reaches us as end of file.
  process.stdin.resume().once('close', () => void end());
}
const { http, smtp, ledger } = simulator;
process.stdout.write(`${JSON.stringify({ http, smtp, ledger })}\n`);
