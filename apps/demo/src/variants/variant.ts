import type { Settings } from 'payments';
import type { UndoList } from '../servers/undo-list.js';
import type { PlacedOrder } from '../stream/order-stream.js';

/** The steps of an order: its charge, then its receipt. Only the idempotent variants reserve goods before, and ship them. */
export type Step = 'reserve' | 'charge' | 'receipt' | 'ship';

/** An operation that its own system does not call done: it is known, and somebody can look after it. */
export interface Unsettled {
  readonly step: Step;
  readonly orderId: string;
  readonly state: 'in_doubt' | 'dead';
}

/** One variant's shop while the orders come in. */
export interface Shop {
  /** Takes an order; again for one that is placed twice. */
  place(order: PlacedOrder): Promise<void>;
  /** Whether nothing is waiting, running, to be retried or to be asked about, of so many orders. */
  isAtRest(orders: number): Promise<boolean>;
  /** What was given up on, or is in doubt, once it is at rest. */
  unsettled(): Promise<readonly Unsettled[]>;
}

/**
 * What a variant is held to. `once`: nothing twice, in a foreign name or lost, and everything accounted for.
 * `known`: that, and nothing in doubt when all is at rest.
 */
export type Promised = 'nothing' | 'once' | 'known';

/** One way of writing the shop. */
export interface Variant {
  readonly name: 'unsafe' | 'findThenSave' | 'idempotent' | 'reconciled';
  readonly title: string;
  readonly promised: Promised;
  /** Whether its gateway honours idempotency keys. */
  readonly honoursKeys: boolean;
  /** Settings of its processes that the others do without. */
  readonly env?: NodeJS.ProcessEnv;
  /** The program that its workers run. */
  readonly workerProgram: string;
  /** Opens the shop's door; its workers are started afterwards. `env` holds what `settings` were read from. */
  open(settings: Settings, env: NodeJS.ProcessEnv, undo: UndoList): Promise<Shop>;
}
