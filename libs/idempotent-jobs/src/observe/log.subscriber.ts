import { type ConsoleLogger, Logger, type LoggerService, type LogLevel } from '@nestjs/common';
import type { JobEvent, JobEvents } from '../events/job-events.js';
import { printable } from '../events/printable.js';

/**
 * Logs one line per transition, in a regular form: what happened, then `tenant=… key=… attempt=…`. A line never has a
 * payload, and text from outside cannot break it into two lines. The sentences in it (`detail`, `error`) are made where the
 * event is emitted.
 * Progress is logged as `debug`, completion as `log`, what may need a look as `warn`, what does need one as `error`.
 */
export function logEvents(
  events: JobEvents,
  which: 'all' | 'problems',
  logger = new Logger('IdempotentJobs'),
): () => void {
  return events.subscribe((event) => {
    const level = levelOf(event);
    if (which === 'problems' && (level === 'debug' || level === 'log')) return;
    if (!isOn(logger, level)) return;
    logger[level](printable(line(event)));
  });
}

/**
 * Asks the logger that would write the line, if it can say; others may drop it by themselves. The static
 * `Logger.isLevelEnabled()` knows only the levels that were set on Nest's own logger, and before Nest 12.2 says no where
 * nobody has set any.
 */
function isOn({ localInstance }: Logger, level: LogLevel): boolean {
  const writer = localInstance as (LoggerService & Partial<ConsoleLogger>) | undefined;
  return writer !== undefined && (writer.isLevelEnabled?.(level) ?? true);
}

/** A dependency in trouble is logged once, by its circuit, and not by each job that waits for it. */
function levelOf(event: JobEvent): 'debug' | 'log' | 'warn' | 'error' {
  if (event.kind === 'deferred' && event.dependency !== undefined) return 'debug';
  if (event.kind === 'handed_back' && isWorthALine(event.times)) return 'warn';
  return LEVELS[event.kind];
}

/** Logs a job that is handed back the second time, then each time that the number has doubled: 2, 4, 8, … */
function isWorthALine(times: number): boolean {
  return times > 1 && Number.isInteger(Math.log2(times));
}

const LEVELS: Readonly<Record<JobEvent['kind'], 'debug' | 'log' | 'warn' | 'error'>> = {
  enqueued: 'debug',
  started: 'debug',
  completed: 'log',
  replayed: 'log',
  refused: 'log',
  handed_back: 'debug',
  conflict_refused: 'warn',
  reconciled: 'log',
  letter_closed: 'log',
  deferred: 'warn',
  retrying: 'warn',
  abandoned: 'warn',
  taken_over: 'warn',
  late_result_discarded: 'warn',
  fence_rejected: 'warn',
  dependency_timeout: 'warn',
  retry_budget_denied: 'debug',
  fallback_used: 'warn',
  letter_dropped: 'warn',
  circuit_changed: 'warn',
  in_doubt: 'error',
  dead: 'error',
};

/**
 * `completed charge tenant=acme key=charge:order-17:1 attempt=2 ms=38`; for a dependency, its name instead of the job's.
 */
function line(event: JobEvent): string {
  const { kind, queue, jobName, jobId, tenantId, operationKey, ...rest } = event;
  const facts = { tenant: tenantId ?? '-', key: operationKey ?? '-', ...rest, queue, job: jobId };
  const words = Object.entries(facts).flatMap(([name, value]) =>
    value === undefined ? [] : [`${NAMES[name] ?? name}=${word(value)}`],
  );
  return `${kind} ${word(jobName ?? ('dependency' in event ? event.dependency : ''))} ${words.join(' ')}`;
}

const NAMES: Readonly<Record<string, string>> = {
  durationMs: 'ms',
  delayMs: 'delay_ms',
  runId: 'run',
  isDuplicate: 'duplicate',
  isVanished: 'vanished',
  letterId: 'letter',
  isFollowUp: 'follow_up',
  stepOf: 'step_of',
  endToEndMs: 'end_to_end_ms',
  waitMs: 'wait_ms',
  failureCode: 'failure_code',
  isOneTenantsFault: 'one_tenants_fault',
  isThrottled: 'throttled',
  droppedResult: 'dropped_result',
};

function word(value: unknown): string {
  if (typeof value === 'number') return String(Math.round(value));
  const text = String(value);
  return /[\s"=]/.test(text) || printable(text) !== text ? JSON.stringify(text) : text;
}
