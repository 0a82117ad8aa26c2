import { Injectable } from '@nestjs/common';
import { Settings } from '../settings.js';

/** A charge to be made. */
export interface ChargeRequest {
  readonly tenant: string;
  readonly orderId: string;
  readonly amountCents: number;
  readonly currency: string;
}

/** A charge that was made. */
export interface Charge {
  readonly chargeId: string;
}

/** The gateway answered with an error. `status` and `headers` tell the library how to classify it. */
export class GatewayError extends Error {
  override readonly name = 'GatewayError';

  constructor(
    readonly status: number,
    readonly headers: Headers,
    reason: string,
  ) {
    super(`The gateway answered ${status}: ${reason}`);
  }
}

/** The payment gateway's HTTP interface. */
@Injectable()
export class PaymentGateway {
  constructor(private readonly settings: Settings) {}

  /**
   * Charges a card. A header `idempotency-key` keeps a second call from charging again, if the gateway honours it.
   *
   * @throws GatewayError for an error response; fetch's own error when there is no response
   */
  async charge(
    request: ChargeRequest,
    headers: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<Charge> {
    const response = await this.send(
      '/charges',
      {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify(request),
      },
      signal,
    );
    return read(response);
  }

  /**
   * Finds the charge that was made under a tenant's key. Undefined when the gateway says that there is none.
   *
   * @throws GatewayError for any other response; fetch's own error when there is no response
   */
  async findByKey(tenant: string, key: string, signal?: AbortSignal): Promise<Charge | undefined> {
    const path = `/charges?key=${encodeURIComponent(key)}`;
    const response = await this.send(path, { headers: { 'x-tenant': tenant } }, signal);
    // Only 404 says "none". A 500, for example, does not answer the question, even if it looks empty.
    if (response.status === 404) return undefined;
    return read(response);
  }

  private send(path: string, request: RequestInit, signal: AbortSignal | undefined): Promise<Response> {
    const { gatewayUrl, gatewayTimeoutMs } = this.settings;
    const timeout = AbortSignal.timeout(gatewayTimeoutMs);
    return fetch(new URL(path, gatewayUrl), {
      ...request,
      signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    });
  }
}

async function read(response: Response): Promise<Charge> {
  const text = await response.text();
  if (!response.ok) throw new GatewayError(response.status, response.headers, text.slice(0, 200));
  return JSON.parse(text) as Charge;
}
