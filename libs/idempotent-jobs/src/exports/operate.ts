// What keeps a ledger in order.
export { RetentionService } from '../retention/retention.service.js';
export type { Retention, RetentionOptions } from '../retention/retention.options.js';
export type { Erased } from '../retention/erasure.js';
export type { Pruned } from '../retention/pruner.js';
export {
  DispatchService,
  type RedispatchReport,
  type RedispatchUnsettledOptions,
} from '../dispatch/dispatch.service.js';
export type { LedgerAction } from '../operation/ledger-action.js';
