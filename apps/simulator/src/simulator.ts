/** The outside world in one process: the gateway, the mailbox, the ledger that judges, and the faults. */
import { ChargeBook } from './gateway/charge-book.js';
import { FaultDesk } from './faults/fault-desk.js';
import { Gateway } from './gateway/gateway.js';
import { startHttpServer } from './http/http-server.js';
import { Ledger } from './ledger/ledger.js';
import { PostOffice } from './mailbox/post-office.js';
import { startSmtpServer } from './mailbox/smtp-server.js';
import { routesOf } from './routes.js';

/** Where the simulator listens and what it writes. */
export interface SimulatorOptions {
  /** Port for HTTP; 0 is a free one. */
  readonly httpPort: number;
  /** Port for SMTP; 0 is a free one. */
  readonly smtpPort: number;
  /** Path of the ledger's file; an existing one is continued. */
  readonly ledger: string;
}

/** Where it can be reached: also the line that the process prints when it is ready. */
export interface SimulatorAddress {
  readonly http: string;
  readonly smtp: string;
  readonly ledger: string;
}

/** Opens the ledger, then the ports. */
export async function openSimulator(
  options: SimulatorOptions,
): Promise<SimulatorAddress & { close(): Promise<void> }> {
  const ledger = await Ledger.open(options.ledger);
  const faults = new FaultDesk();
  const book = new ChargeBook();
  for (const entry of ledger.entries()) {
    book.remember(entry);
    faults.recall(entry, entry.ordinal);
    if (entry.fault) faults.happened(entry.run, entry.service, entry.fault);
  }
  const office = new PostOffice(ledger, faults);
  const smtp = await startSmtpServer(options.smtpPort, office);
  const routes = routesOf({ ledger, faults, book, office, gateway: new Gateway(ledger, faults, book) });
  const http = await startHttpServer(options.httpPort, routes);
  return {
    http: `http://127.0.0.1:${http.port}`,
    smtp: `smtp://127.0.0.1:${smtp.port}`,
    ledger: options.ledger,
    async close() {
      await Promise.all([http.close(), smtp.close()]);
      await ledger.close();
    },
  };
}
