import { Injectable } from '@nestjs/common';
import { createTransport } from 'nodemailer';
import { Settings } from '../settings.js';

/** A plain text mail to one recipient. */
export interface OutgoingMail {
  readonly from: string;
  readonly to: string;
  readonly subject: string;
  readonly text: string;
  /** Without the angle brackets. Default: a random one. */
  readonly messageId?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** How long the mail server may stay silent, in milliseconds. nodemailer takes no AbortSignal, only such timeouts. */
const SILENCE_MS = 5_000;

/** The mail server, over SMTP. */
@Injectable()
export class Mailer {
  private readonly transport;

  constructor(settings: Settings) {
    this.transport = createTransport({
      url: settings.smtpUrl,
      connectionTimeout: SILENCE_MS,
      greetingTimeout: SILENCE_MS,
      socketTimeout: SILENCE_MS,
    });
  }

  /** @throws nodemailer's error, which the library classifies: only a refusal means that nothing was delivered */
  async send({ messageId, headers, ...mail }: OutgoingMail): Promise<void> {
    await this.transport.sendMail({
      ...mail,
      ...(messageId !== undefined && { messageId: `<${messageId}>` }),
      ...(headers !== undefined && { headers: { ...headers } }),
    });
  }
}
