import { createHash } from 'node:crypto';
import type { Exchange } from '../http/exchange.js';
import type { Arrival, OpenArrival } from '../ledger/ledger-entry.js';
import { hashOf, type ChargeRequest } from './charge-request.js';

/** What the ledger is to say about a request before it is decided what becomes of it. */
export function arrivalOf(
  exchange: Exchange,
  run: string,
  request: ChargeRequest,
  ordinal: number,
): OpenArrival {
  return {
    ...whoAsks(exchange, run),
    tenant: request.tenant,
    subject: request.orderId,
    ordinal,
    payloadHash: hashOf(request),
  };
}

/** What the ledger is to say about a request that cannot be understood. */
export function invalidArrival(exchange: Exchange, body: unknown): Arrival {
  const known = whoAsks(exchange, exchange.run());
  return {
    ...known,
    tenant: known.claimedTenant ?? '',
    subject: '',
    ordinal: 0,
    payloadHash: createHash('sha256')
      .update(JSON.stringify(body ?? null))
      .digest('hex'),
    outcome: 'invalid',
  };
}

function whoAsks(exchange: Exchange, run: string) {
  return {
    run,
    service: 'charge',
    effect: false,
    fault: null,
    claimedTenant: exchange.header('x-tenant'),
    key: exchange.header('idempotency-key'),
    attempt: exchange.numberHeader('x-attempt'),
    fencingToken: exchange.numberHeader('x-fencing-token'),
    worker: exchange.header('x-worker'),
  } as const;
}
