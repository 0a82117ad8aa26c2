import type { FaultCounts } from '../faults/fault-kinds.js';
import type { FaultScript, FaultSettings } from '../faults/fault-settings.js';
import type { LedgerEntry } from '../ledger/ledger-entry.js';
import type { DeliveredMail } from '../mailbox/post-office.js';

/** The tests' way to the simulator. Every method throws when it does not answer with success. */
export class SimulatorClient {
  /** @param http where it listens: `http://127.0.0.1:4000` */
  constructor(readonly http: string) {}

  /** Replaces the fault plan of the run and service. */
  async faults(settings: FaultSettings): Promise<void> {
    await this.ask('PUT', '/faults', {}, settings);
  }

  /** Adds faults that the next matching arrivals take in order. */
  async script(script: FaultScript): Promise<void> {
    await this.ask('POST', '/faults/script', {}, script);
  }

  /** Ends the run's plans and scripts; their counts, and `honourKeys`, stay. */
  async clearFaults(run: string): Promise<void> {
    await this.ask('DELETE', '/faults', { run });
  }

  /** How often each fault really happened. */
  async faultCounts(run: string): Promise<FaultCounts> {
    return (await this.ask('GET', '/faults', { run })) as FaultCounts;
  }

  /** All arrivals of a run, or of all runs, in order. */
  async ledger(run?: string): Promise<LedgerEntry[]> {
    return (await this.ask('GET', '/ledger', { run })) as LedgerEntry[];
  }

  /** The delivered mails of a run, optionally only those to an address, or with a Message-ID. */
  async mailbox(run: string, filter: { to?: string; messageId?: string } = {}): Promise<DeliveredMail[]> {
    return (await this.ask('GET', '/mailbox', { run, ...filter })) as DeliveredMail[];
  }

  /** Forgets all about the run: entries, charges, mails, keys, faults. */
  async reset(run: string): Promise<void> {
    await this.ask('POST', '/reset', { run });
  }

  private async ask(
    method: string,
    path: string,
    query: Record<string, string | undefined>,
    body?: unknown,
  ): Promise<unknown> {
    const url = new URL(path, this.http);
    for (const [name, value] of Object.entries(query))
      if (value !== undefined) url.searchParams.set(name, value);
    const response = await fetch(url, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });
    const text = await response.text();
    if (!response.ok)
      throw new Error(`The simulator answered ${method} ${path} with ${response.status}: ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  }
}
