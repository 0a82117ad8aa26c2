/**
 * The payment gateway, with the manners of the real ones: a key stands for one charge, and everything between the effect
 * and its answer can go wrong. An effect is in the ledger, on disk, before anybody hears of it.
 */
import { randomUUID } from 'node:crypto';
import type { FaultDesk } from '../faults/fault-desk.js';
import type { Fault } from '../faults/fault-kinds.js';
import { sufferBeforeAnswer, sufferBeforeEffect } from '../faults/suffer.js';
import type { Exchange } from '../http/exchange.js';
import type { Arrival, OpenArrival } from '../ledger/ledger-entry.js';
import type { Ledger } from '../ledger/ledger.js';
import { arrivalOf, invalidArrival } from './charge-arrival.js';
import type { ChargeBook } from './charge-book.js';
import { readChargeRequest, type ChargeRequest } from './charge-request.js';

export class Gateway {
  constructor(
    private readonly ledger: Ledger,
    private readonly faults: FaultDesk,
    private readonly book: ChargeBook,
  ) {}

  /** `POST /charges` */
  async charge(exchange: Exchange): Promise<void> {
    // What cannot be read is an arrival too.
    const body = await exchange.json().catch(() => undefined);
    const request = readChargeRequest(body);
    if (typeof request === 'string') {
      await this.ledger.append(invalidArrival(exchange, body));
      exchange.answer(400, { error: request });
      return;
    }
    const run = exchange.run();
    const subject = { run, service: 'charge', tenant: request.tenant, subject: request.orderId } as const;
    const { ordinal, fault } = this.faults.arrive(subject);
    const arrival = arrivalOf(exchange, run, request, ordinal);
    if (fault?.kind === 'refused' || fault?.kind === 'throttled')
      await this.turnAway(exchange, arrival, fault);
    else await this.serve(exchange, arrival, request, fault);
  }

  /** `GET /charges?key=` */
  findByKey(exchange: Exchange): void {
    const charge = this.book.findByKey(scopeOf(exchange), exchange.url.searchParams.get('key') ?? '');
    exchange.answer(charge ? 200 : 404, charge ?? { error: 'no charge was made under this key' });
  }

  /** `GET /charges/:id` */
  findById(exchange: Exchange): void {
    const charge = this.book.findById(scopeOf(exchange), exchange.url.pathname.split('/').at(-1) ?? '');
    exchange.answer(charge ? 200 : 404, charge ?? { error: 'no charge has this id' });
  }

  private async turnAway(exchange: Exchange, arrival: OpenArrival, fault: Fault): Promise<void> {
    this.faults.happened(arrival.run, 'charge', fault.kind);
    if (fault.kind === 'refused') {
      await this.ledger.append({ ...arrival, outcome: 'refused', fault: 'refused' });
      exchange.answer(503, { error: 'the gateway is down, nothing was charged' });
      return;
    }
    await this.ledger.append({ ...arrival, outcome: 'throttled', fault: 'throttled' });
    const headers = { 'retry-after': String(fault.retryAfterSeconds) };
    exchange.answer(429, { error: 'too many requests, nothing was charged' }, headers);
  }

  private async serve(
    exchange: Exchange,
    arrival: OpenArrival,
    request: ChargeRequest,
    fault?: Fault,
  ): Promise<void> {
    const { key, run } = arrival;
    const isKeyed = key !== null && this.faults.honoursKeys(run);
    const claim = isKeyed ? this.book.claim(arrival, key, arrival.payloadHash) : ({ kind: 'mine' } as const);
    switch (claim.kind) {
      case 'in_progress':
        await this.ledger.append({ ...arrival, outcome: 'in_progress' });
        exchange.answer(409, { error: 'a charge with this key is in progress' });
        return;
      case 'conflict':
        await this.ledger.append({ ...arrival, outcome: 'conflict' });
        exchange.answer(422, { error: 'this key was used for another charge' });
        return;
      case 'replay': {
        if (fault) this.faults.happened(run, 'charge', fault.kind);
        const { charge } = claim;
        await this.ledger.append({ ...arrival, outcome: 'replayed', fault: fault?.kind ?? null, charge });
        await answer(exchange, fault, 200, charge, { 'idempotent-replayed': 'true' });
        return;
      }
      case 'mine':
        try {
          await this.make(exchange, arrival, request, fault);
        } finally {
          // Only now: until the client has its answer, or has gone, the charge is in progress.
          if (isKeyed) this.book.release(arrival, key);
        }
    }
  }

  private async make(
    exchange: Exchange,
    arrival: OpenArrival,
    request: ChargeRequest,
    fault?: Fault,
  ): Promise<void> {
    if (fault) this.faults.happened(arrival.run, 'charge', fault.kind);
    await sufferBeforeEffect(fault);
    const { orderId, amountCents, currency } = request;
    const charge = { chargeId: `ch_${randomUUID()}`, orderId, amountCents, currency };
    const done: Arrival = { ...arrival, effect: true, outcome: 'done', fault: fault?.kind ?? null, charge };
    await this.ledger.append(done);
    this.book.remember(done);
    await answer(exchange, fault, 201, charge);
  }
}

async function answer(
  exchange: Exchange,
  fault: Fault | undefined,
  status: number,
  body: unknown,
  headers?: Record<string, string>,
): Promise<void> {
  const left = await sufferBeforeAnswer(fault, exchange.socket);
  if (left === 'answer') exchange.answer(status, body, headers);
  if (left === 'error') exchange.answer(500, { error: 'internal error' });
}

function scopeOf(exchange: Exchange): { run: string; tenant: string } {
  const tenant = exchange.header('x-tenant') ?? exchange.url.searchParams.get('tenant') ?? '';
  return { run: exchange.run(), tenant };
}
