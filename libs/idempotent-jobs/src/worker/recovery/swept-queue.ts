import type { QueuePort } from '../../bullmq/queue-port.js';
import type { OperationRules } from '../rules/operation-rules.js';

/** A queue whose failed jobs are swept. */
export interface SweptQueue {
  readonly port: QueuePort;
  readonly rules: OperationRules;
}
