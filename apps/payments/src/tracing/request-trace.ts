import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import type { NextFunction, Request, Response } from 'express';

/** A W3C trace context, as it travels with a job. */
export interface Trace {
  readonly traceparent: string;
}

const traces = new AsyncLocalStorage<Trace>();

/** Middleware: what a request asks for belongs to the trace that it came with, or to one of its own. */
export function traceRequest(request: Request, _response: Response, next: NextFunction): void {
  traces.run({ traceparent: request.header('traceparent') ?? newTraceparent() }, next);
}

/** The trace of the request that is being served; undefined: none is. */
export function currentTrace(): Trace | undefined {
  return traces.getStore();
}

function newTraceparent(): string {
  return `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`;
}
