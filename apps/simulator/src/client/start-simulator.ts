import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { SimulatorAddress } from '../simulator.js';
import { SimulatorClient } from './simulator-client.js';

/** From `src` (in a test) as from `dist`, the script to run is the compiled one. */
const SCRIPT = fileURLToPath(new URL('../../dist/main.js', import.meta.url));
const READY_MS = 20_000;
const STOP_MS = 5_000;

/** How to start a simulator; without anything: free ports and a temporary ledger. */
export interface StartSimulatorOptions {
  /** Path of the ledger's file; an existing one is continued. */
  readonly ledger?: string;
  /** Port for HTTP. */
  readonly http?: number;
  /** Port for SMTP. */
  readonly smtp?: number;
}

/** A simulator in a process of its own. It ends with this process, however that ends. */
export interface RunningSimulator extends SimulatorAddress {
  readonly pid: number;
  readonly client: SimulatorClient;
  /** Ends it gracefully, or after five seconds by force. A ledger that you named stays. */
  stop(): Promise<void>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

/**
 * Starts a simulator and waits until it is ready.
 *
 * @throws Error with what it wrote to stderr when it ends or stays silent instead
 */
export async function startSimulator(options: StartSimulatorOptions = {}): Promise<RunningSimulator> {
  const child = spawn(process.execPath, [SCRIPT], {
    // Ctrl-C in a terminal is for us; the outside world stays until we are done with it.
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      SIMULATOR_EXIT_WITH_PARENT: '1',
      SIMULATOR_HTTP_PORT: String(options.http ?? 0),
      SIMULATOR_SMTP_PORT: String(options.smtp ?? 0),
      SIMULATOR_LEDGER: options.ledger ?? '',
    },
  });
  const address = await readyLine(child);
  // Nothing of it keeps us alive; its stdin stays open, which is how it knows that we are.
  child.unref();
  for (const stream of child.stdio) (stream as unknown as { unref?(): void } | null)?.unref?.();
  return {
    ...address,
    pid: child.pid!,
    client: new SimulatorClient(address.http),
    stop: () => end(child, 'SIGTERM'),
    kill: () => end(child, 'SIGKILL'),
  };
}

async function readyLine(child: ChildProcess): Promise<SimulatorAddress> {
  let complaints = '';
  child.stderr?.on('data', (chunk: Buffer) => (complaints = (complaints + chunk.toString()).slice(-4_000)));
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), READY_MS);
  try {
    const lines = createInterface({ input: child.stdout as Readable });
    const [line] = (await Promise.race([
      once(lines, 'line', { signal: patience.signal }),
      // 'close' and not 'exit': only then has all of stderr been read.
      once(child, 'close').then(() => Promise.reject(new Error('it exited'))),
    ])) as [string];
    return JSON.parse(line) as SimulatorAddress;
  } catch (cause) {
    child.kill('SIGKILL');
    const why = patience.signal.aborted ? `was not ready within ${READY_MS} ms` : 'could not be started';
    throw new Error(`The simulator ${SCRIPT} ${why}. Is it built? Its stderr:\n${complaints}`, { cause });
  } finally {
    clearTimeout(timer);
  }
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.ref();
  const ended = once(child, 'exit');
  child.kill(signal);
  const patience = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await ended;
  clearTimeout(patience);
}
