import { createHash } from 'node:crypto';
import type { Mail, OpenArrival } from '../ledger/ledger-entry.js';
import type { MailMessage } from './mail-message.js';

/** What the ledger is to say about a mail before it is decided what becomes of it; `mail` is what would be delivered. */
export interface MailArrival {
  readonly mail: Mail;
  readonly arrival: OpenArrival;
}

/** Reads what the headers and the envelope tell. */
export function mailArrivalOf(message: MailMessage, from: string, to: string): MailArrival {
  const header = (name: string) => message.headers.get(name) || null;
  const attempt = Number(header('x-attempt') ?? Number.NaN);
  const fencingToken = Number(header('x-fencing-token') ?? Number.NaN);
  const mail: Mail = {
    to,
    recipientTenant: tenantOfAddress(to),
    from,
    subject: header('subject') ?? '',
    messageId: header('message-id'),
    body: message.body,
  };
  const arrival: OpenArrival = {
    run: header('x-run') ?? 'default',
    service: 'mail',
    effect: false,
    fault: null,
    tenant: header('x-tenant') ?? '',
    claimedTenant: header('x-tenant'),
    key: header('x-operation-key'),
    subject: `${to} ${mail.subject}`,
    ordinal: 0,
    payloadHash: createHash('sha256')
      .update(JSON.stringify([to, mail.subject, mail.body]))
      .digest('hex'),
    attempt: Number.isNaN(attempt) ? null : attempt,
    fencingToken: Number.isNaN(fencingToken) ? null : fencingToken,
    worker: header('x-worker'),
  };
  return { mail, arrival };
}

/** `acme` for `customer@acme.test`. */
function tenantOfAddress(address: string): string {
  return address.slice(address.lastIndexOf('@') + 1).split('.')[0] ?? '';
}
