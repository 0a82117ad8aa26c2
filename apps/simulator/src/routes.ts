import { checkScript, checkSettings } from './faults/fault-settings.js';
import type { FaultDesk } from './faults/fault-desk.js';
import type { ChargeBook } from './gateway/charge-book.js';
import type { Gateway } from './gateway/gateway.js';
import type { Routes } from './http/http-server.js';
import type { Ledger } from './ledger/ledger.js';
import type { PostOffice } from './mailbox/post-office.js';

/** What the routes lead to. */
interface Parts {
  readonly ledger: Ledger;
  readonly faults: FaultDesk;
  readonly book: ChargeBook;
  readonly gateway: Gateway;
  readonly office: PostOffice;
}

/** The simulator's HTTP interface: the gateway for the applications, everything else for the tests. */
export function routesOf({ ledger, faults, book, gateway, office }: Parts): Routes {
  return {
    'POST /charges': (exchange) => gateway.charge(exchange),
    'GET /charges': (exchange) => gateway.findByKey(exchange),
    'GET /charges/': (exchange) => gateway.findById(exchange),
    'GET /mailbox': (exchange) => {
      const query = exchange.url.searchParams;
      const filter = { to: query.get('to'), messageId: query.get('messageId') };
      exchange.answer(200, office.mailbox(exchange.run(), filter));
    },
    'GET /ledger': (exchange) => {
      exchange.answer(200, ledger.entries(exchange.url.searchParams.get('run') ?? undefined));
    },
    'GET /faults': (exchange) => exchange.answer(200, faults.counts(exchange.run())),
    'PUT /faults': async (exchange) => {
      const settings = checkSettings(await exchange.json());
      faults.plan(exchange.run(settings), settings);
      exchange.answer(204);
    },
    'POST /faults/script': async (exchange) => {
      const script = checkScript(await exchange.json());
      faults.script(exchange.run(script), script);
      exchange.answer(204);
    },
    'DELETE /faults': (exchange) => {
      faults.clear(exchange.run());
      exchange.answer(204);
    },
    'POST /reset': async (exchange) => {
      const run = exchange.run();
      faults.reset(run);
      book.reset(run);
      await ledger.reset(run);
      exchange.answer(204);
    },
    'GET /health': (exchange) => exchange.answer(200, { status: 'up' }),
  };
}
