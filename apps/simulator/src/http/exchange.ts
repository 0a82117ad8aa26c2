/** One HTTP request and its answer, with just as much comfort as the routes need. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { InvalidRequestError } from '../faults/fault-settings.js';

const MAX_BODY_BYTES = 1024 * 1024;
const DEFAULT_RUN = 'default';

export class Exchange {
  readonly url: URL;

  constructor(
    private readonly request: IncomingMessage,
    private readonly response: ServerResponse,
  ) {
    this.url = new URL(request.url ?? '/', 'http://simulator');
  }

  get method(): string {
    return this.request.method ?? 'GET';
  }

  get socket(): Socket {
    return this.request.socket;
  }

  /** The run that a body, the query (`?run=`) or the header `x-run` names. */
  run(body?: { readonly run?: string }): string {
    return body?.run ?? this.url.searchParams.get('run') ?? this.header('x-run') ?? DEFAULT_RUN;
  }

  header(name: string): string | null {
    const value = this.request.headers[name];
    return typeof value === 'string' && value !== '' ? value : null;
  }

  /** A header that counts something; null when it is missing or no number. */
  numberHeader(name: string): number | null {
    const value = this.header(name);
    return value === null || Number.isNaN(Number(value)) ? null : Number(value);
  }

  /**
   * The body as JSON.
   *
   * @throws InvalidRequestError when it is none, or larger than a megabyte
   */
  async json(): Promise<unknown> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of this.request as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > MAX_BODY_BYTES)
        throw new InvalidRequestError(`the body is larger than ${MAX_BODY_BYTES} bytes`);
      chunks.push(chunk);
    }
    try {
      return JSON.parse(Buffer.concat(chunks).toString('utf8'));
    } catch {
      throw new InvalidRequestError('the body is JSON');
    }
  }

  answer(status: number, body?: unknown, headers: Record<string, string> = {}): void {
    if (this.response.headersSent || this.socket.destroyed) return;
    if (body === undefined) {
      this.response.writeHead(status, headers).end();
      return;
    }
    this.response
      .writeHead(status, { 'content-type': 'application/json', ...headers })
      .end(JSON.stringify(body));
  }
}
