/**
 * The outside world of one variant: a simulator of its own, which misbehaves the same way for every variant. Only whether
 * the gateway honours idempotency keys is the variant's.
 */
import { type RunningSimulator, startSimulator } from 'simulator';
import type { UndoList } from './undo-list.js';

/**
 * The share of first and second calls that suffer; third ones are spared, so that retrying leads somewhere. It is above
 * the 20 % that is promised, because later calls dilute it.
 */
const FAULT_RATE = 0.33;

export async function startOutsideWorld(
  seed: number,
  honourKeys: boolean,
  undo: UndoList,
): Promise<RunningSimulator> {
  const simulator = await undo.keep(startSimulator(), (running) => running.stop());
  const plan = {
    seed,
    rate: FAULT_RATE,
    kinds: ['answer_lost', 'error_after_effect', 'slow', 'refused', 'throttled'],
    slowMs: 300,
    retryAfterSeconds: 1,
    maxFaultsPerSubject: 2,
  } as const;
  await simulator.client.faults({ ...plan, service: 'charge', honourKeys });
  await simulator.client.faults({ ...plan, service: 'mail' });
  return simulator;
}
