import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import type { NextFunction, Request, Response } from 'express';

/** A W3C trace context, as it travels with a job. */
export interface Trace {
  readonly traceparent: string;
}

const traces = new AsyncLocalStorage<Trace>();

/** Middleware: the jobs that a request enqueues belong to the trace of the request, or to a new one. */
export function traceRequest(request: Request, _response: Response, next: NextFunction): void {
  traces.run({ traceparent: request.header('traceparent') ?? newTraceparent() }, next);
}

/** The trace of the current request. Undefined outside of a request. */
export function currentTrace(): Trace | undefined {
  return traces.getStore();
}

function newTraceparent(): string {
  return `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;
}
