/**
 * Variant (b): what teams do after the first double charge. A table knows the jobs that are done; a job that is in it is
 * skipped. The tenant is handed from call to call. What happened between the effect and the save is not in the table.
 */
import { serve } from '../plain/serve.js';
import { ChargeProcessor } from './charge.processor.js';
import { ProcessedJob } from './processed-job.entity.js';
import { ReceiptProcessor } from './receipt.processor.js';

await serve([ChargeProcessor, ReceiptProcessor], [ProcessedJob]);
