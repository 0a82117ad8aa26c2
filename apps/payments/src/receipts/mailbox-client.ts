import { Injectable } from '@nestjs/common';
import { Settings } from '../settings.js';

/** The mail provider's HTTP interface for looking up delivered mails. */
@Injectable()
export class MailboxClient {
  constructor(private readonly settings: Settings) {}

  /**
   * Whether a mail with this Message-ID (without the angle brackets) has been delivered.
   *
   * @throws Error for any response but a list of mails; fetch's own error when there is no response
   */
  async has(messageId: string, signal: AbortSignal): Promise<boolean> {
    const url = new URL('/mailbox', this.settings.mailboxUrl);
    url.searchParams.set('messageId', `<${messageId}>`);
    const response = await fetch(url, { signal });
    const mails: unknown = response.ok ? await response.json() : undefined;
    if (!Array.isArray(mails))
      throw new Error(`The mailbox answered ${response.status} without a list of mails`);
    return mails.length > 0;
  }
}
