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

/** The gateway answered, and not with success. `status` and `headers` tell the retry policy what to make of it. */
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
   * Charges a card. Whether a second call charges again is up to `idempotency-key` among the headers.
   *
   * @throws GatewayError when the answer is not success; whatever fetch throws when there is none
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
   * The charge that was made under a key of a tenant; undefined: the gateway says that there is none.
   *
   * @throws GatewayError for any answer that is neither; whatever fetch throws when there is none
   */
  async findByKey(tenant: string, key: string, signal?: AbortSignal): Promise<Charge | undefined> {
    const path = `/charges?key=${encodeURIComponent(key)}`;
    const response = await this.send(path, { headers: { 'x-tenant': tenant } }, signal);
    // Only this one says "none". A 500, say, is no answer to the question, however empty it looks.
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
