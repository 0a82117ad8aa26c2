/** The parts that the demo's variants share with this application, so that only their processors differ. */
export { PaymentGateway } from './charges/payment-gateway.js';
export { migrate } from './database/migrate.js';
export { TABLES } from './database/tables.js';
export { stockUp } from './inventory/stock.js';
export { endWithParent } from './end-with-parent.js';
export { Order } from './orders/order.entity.js';
export { queueConnection } from './queue-connection.js';
export { Mailer } from './receipts/mailer.js';
export { receiptMail } from './receipts/receipt-mail.js';
export { numberOf, variable } from './environment.js';
export { type QueueBackend, Settings, settingsFrom } from './settings.js';
export { SettingsModule } from './settings.module.js';
