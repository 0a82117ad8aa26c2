import { Injectable } from '@nestjs/common';
import { Settings } from '../settings.js';

/** The mail provider's HTTP interface, which tells what it has delivered. */
@Injectable()
export class MailboxClient {
  constructor(private readonly settings: Settings) {}

  /**
   * Whether a mail with this Message-ID (without the angle brackets) has been delivered.
   *
   * @throws Error for any answer but a list of mails; whatever fetch throws when there is none
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
