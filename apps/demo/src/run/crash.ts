/**
 * One worker dies in the middle of a charge, provably: the gateway takes the charge of one order and then keeps silent.
 * When the charge is in the gateway's ledger, the worker that the ledger names is waiting for the answer, and is killed.
 */
import type { SimulatorClient } from 'simulator';
import { until } from './until.js';
import type { Workers } from './workers.js';

/** What happened, for the report. */
export interface Crash {
  readonly orderId: string;
  readonly worker: string;
  readonly pid: number | undefined;
}

/** Makes the gateway keep silent about an order's first charge. */
export async function prepareCrash(simulator: SimulatorClient, orderId: string): Promise<void> {
  await simulator.script({ service: 'charge', subject: orderId, steps: ['hang'] });
}

/** Waits for that charge, kills its worker with SIGKILL and starts another one in its place. */
export async function crash(
  simulator: SimulatorClient,
  orderId: string,
  workers: Workers,
  deadline: number,
): Promise<Crash> {
  const charge = await until(`the charge of ${orderId} is at the gateway`, deadline, 50, async () => {
    const entries = await simulator.ledger();
    return entries.find(
      ({ service, subject, fault }) => service === 'charge' && subject === orderId && fault === 'hang',
    );
  });
  const worker = charge.worker ?? '';
  const { pid } = await workers.kill(worker);
  await workers.start(`${worker}-restarted`);
  return { orderId, worker, pid };
}
