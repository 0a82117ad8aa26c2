/**
 * The mail server's decisions. Mail is the service that honours no key: what is accepted is in the customer's mailbox, and
 * accepted twice it is there twice. Only a look into the mailbox tells afterwards.
 *
 * Refusals are answered at the end of DATA and not before it, because run, tenant and subject are only known from the
 * headers. To the client it is the same promise: the server has not taken the mail.
 */
import type { Socket } from 'node:net';
import type { FaultDesk } from '../faults/fault-desk.js';
import { sufferBeforeAnswer, sufferBeforeEffect } from '../faults/suffer.js';
import type { LedgerEntry, Mail } from '../ledger/ledger-entry.js';
import type { Ledger } from '../ledger/ledger.js';
import { mailArrivalOf } from './mail-arrival.js';
import { readMessage } from './mail-message.js';

/** A reply of the server. */
export interface SmtpReply {
  readonly code: number;
  readonly text: string;
}

/** A delivered mail. */
export interface DeliveredMail
  extends Mail, Pick<LedgerEntry, 'number' | 'tenant' | 'key' | 'attempt' | 'worker' | 'at'> {}

export class PostOffice {
  constructor(
    private readonly ledger: Ledger,
    private readonly faults: FaultDesk,
  ) {}

  /** Takes a mail and says what to reply, if anything; takes as long as its fault does. */
  async receive(raw: string, from: string, to: string, socket: Socket): Promise<SmtpReply | undefined> {
    const { mail, arrival: unmet } = mailArrivalOf(readMessage(raw), from, to);
    const { ordinal, fault } = this.faults.arrive(unmet);
    const arrival = { ...unmet, ordinal, fault: fault?.kind ?? null };
    if (fault) this.faults.happened(arrival.run, 'mail', fault.kind);
    if (fault?.kind === 'refused' || fault?.kind === 'throttled') {
      await this.ledger.append({ ...arrival, outcome: fault.kind });
      return fault.kind === 'refused'
        ? { code: 421, text: 'Service not available, mail not taken' }
        : { code: 450, text: 'Too many mails, mail not taken' };
    }
    await sufferBeforeEffect(fault);
    await this.ledger.append({ ...arrival, effect: true, outcome: 'done', mail });
    const left = await sufferBeforeAnswer(fault, socket);
    if (left === 'error') return { code: 451, text: 'Local error in processing' };
    return left === 'answer' ? { code: 250, text: 'Mail delivered' } : undefined;
  }

  /** The delivered mails of a run, optionally only those to an address, or with a Message-ID. */
  mailbox(run: string, filter: { to?: string | null; messageId?: string | null }): DeliveredMail[] {
    return this.ledger
      .entries(run)
      .filter(({ mail }) => mail !== undefined)
      .map(({ number, tenant, key, attempt, worker, at, mail }) => ({
        number,
        tenant,
        key,
        attempt,
        worker,
        at,
        ...mail!,
      }))
      .filter((mail) => !filter.to || mail.to === filter.to)
      .filter((mail) => !filter.messageId || mail.messageId === filter.messageId);
  }
}
