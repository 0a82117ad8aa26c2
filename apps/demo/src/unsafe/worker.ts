/**
 * Variant (a): what many services start with. BullMQ retries whatever fails, and a variable of the module knows the
 * tenant. Each attempt charges and mails anew; and between setting the variable and reading it, the worker's other jobs
 * have their turn.
 */
import { serve } from '../plain/serve.js';
import { ChargeProcessor } from './charge.processor.js';
import { ReceiptProcessor } from './receipt.processor.js';
import { ShopMailer } from './shop-mailer.js';

await serve([ChargeProcessor, ReceiptProcessor, ShopMailer]);
