// Maintenance of a ledger.
export { RetentionService } from '../operate/retention/retention.service.js';
export type { Retention, RetentionOptions } from '../ledger/retention.options.js';
export type { Erased } from '../operate/retention/erasure.js';
export type { Pruned } from '../operate/retention/pruner.js';
export {
  DispatchService,
  type RedispatchReport,
  type RedispatchUnsettledOptions,
} from '../dispatch/dispatch.service.js';
export type { LedgerAction } from '../operation/ledger-action.js';
