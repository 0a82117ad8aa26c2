import { ConsoleLogger, type Logger } from '@nestjs/common';
import { describe, expect, it } from 'vitest';
import { type JobEvent, JobEvents } from '../events/job-events.js';
import { logEvents } from './log.subscriber.js';

const LEVELS = ['debug', 'log', 'warn', 'error'] as const;
type Level = (typeof LEVELS)[number];

/** `writer` is what Nest's logger writes to. Undefined where logging is off. */
function listen(which: 'all' | 'problems' = 'all', writer: () => unknown = () => ({})) {
  const lines: [Level, string][] = [];
  const written = LEVELS.map((level) => [level, (line: string) => lines.push([level, line])]);
  const logger = { ...Object.fromEntries(written), localInstance: writer() } as unknown as Logger;
  const events = new JobEvents();
  const stop = logEvents(events, which, logger);
  return { events, lines, stop };
}

const subject = {
  queue: 'charges',
  jobName: 'charge',
  jobId: 'op-1',
  tenantId: 'acme',
  operationKey: 'charge:order-17:1',
};

const DOUBT = { attempt: 1, failure: 'in_doubt', durationMs: 8 } as const;

/** One of each kind, with the level and the line that it makes. */
const TABLE: [JobEvent, Level, string][] = [
  [
    { kind: 'enqueued', ...subject, isDuplicate: false },
    'debug',
    'enqueued charge tenant=acme key=charge:order-17:1 duplicate=false queue=charges job=op-1',
  ],
  [
    { kind: 'started', ...subject, attempt: 1, runId: 'web-1:77:abcd/5' },
    'debug',
    'started charge tenant=acme key=charge:order-17:1 attempt=1 run=web-1:77:abcd/5 queue=charges job=op-1',
  ],
  [
    { kind: 'completed', ...subject, attempt: 2, durationMs: 37.6, endToEndMs: 92 },
    'log',
    'completed charge tenant=acme key=charge:order-17:1 attempt=2 ms=38 end_to_end_ms=92 queue=charges job=op-1',
  ],
  [
    { kind: 'completed', ...subject, attempt: 1, durationMs: 1, endToEndMs: 2, droppedResult: 'no JSON' },
    'log',
    'completed charge tenant=acme key=charge:order-17:1 attempt=1 ms=1 end_to_end_ms=2 dropped_result="no JSON" queue=charges job=op-1',
  ],
  [
    {
      kind: 'retrying',
      ...subject,
      attempt: 1,
      durationMs: 2,
      failure: 'transient',
      failureCode: 'http_429',
      isThrottled: true,
      error: 'slower',
      delayMs: 5,
      decision: 'retry_after',
    },
    'warn',
    'retrying charge tenant=acme key=charge:order-17:1 attempt=1 ms=2 failure=transient failure_code=http_429 throttled=true error=slower delay_ms=5 decision=retry_after queue=charges job=op-1',
  ],
  [
    { kind: 'replayed', ...subject },
    'log',
    'replayed charge tenant=acme key=charge:order-17:1 queue=charges job=op-1',
  ],
  [
    {
      kind: 'retrying',
      ...subject,
      attempt: 1,
      durationMs: 5,
      delayMs: 812.2,
      failureCode: 'http_503',
      decision: 'backoff',
      failure: 'transient',
      error: 'said "no"',
    },
    'warn',
    String.raw`retrying charge tenant=acme key=charge:order-17:1 attempt=1 ms=5 delay_ms=812 failure_code=http_503 decision=backoff failure=transient error="said \"no\"" queue=charges job=op-1`,
  ],
  [
    { kind: 'in_doubt', ...subject, ...DOUBT, failureCode: 'ECONNRESET', error: 'socket hang up' },
    'error',
    'in_doubt charge tenant=acme key=charge:order-17:1 attempt=1 failure=in_doubt ms=8 failure_code=ECONNRESET error="socket hang up" queue=charges job=op-1',
  ],
  [
    {
      kind: 'dead',
      ...subject,
      attempt: 5,
      reason: 'retries_exhausted',
      failure: 'transient',
      failureCode: 'http_429',
      error: 'declined',
      durationMs: 9,
    },
    'error',
    'dead charge tenant=acme key=charge:order-17:1 attempt=5 reason=retries_exhausted failure=transient failure_code=http_429 error=declined ms=9 queue=charges job=op-1',
  ],
  [
    { kind: 'deferred', ...subject, delayMs: 200, cause: 'busy', detail: 'busy: another' },
    'warn',
    'deferred charge tenant=acme key=charge:order-17:1 delay_ms=200 cause=busy detail="busy: another" queue=charges job=op-1',
  ],
  [
    { kind: 'deferred', ...subject, delayMs: 9, cause: 'circuit_open', detail: 'r', dependency: 'gateway' },
    'debug',
    'deferred charge tenant=acme key=charge:order-17:1 delay_ms=9 cause=circuit_open detail=r dependency=gateway queue=charges job=op-1',
  ],
  [
    { kind: 'taken_over', ...subject, attempt: 1, from: undefined },
    'warn',
    'taken_over charge tenant=acme key=charge:order-17:1 attempt=1 queue=charges job=op-1',
  ],
  [
    { kind: 'abandoned', ...subject, attempt: 1, by: 'timeout' },
    'warn',
    'abandoned charge tenant=acme key=charge:order-17:1 attempt=1 by=timeout queue=charges job=op-1',
  ],
  [
    { kind: 'late_result_discarded', ...subject, how: 'returned' },
    'warn',
    'late_result_discarded charge tenant=acme key=charge:order-17:1 how=returned queue=charges job=op-1',
  ],
  [
    { kind: 'fence_rejected', ...subject, attempt: 3 },
    'warn',
    'fence_rejected charge tenant=acme key=charge:order-17:1 attempt=3 queue=charges job=op-1',
  ],
  [
    { kind: 'letter_closed', ...subject, letterId: '5f2b', as: 'redriven', actor: 'ada' },
    'log',
    'letter_closed charge tenant=acme key=charge:order-17:1 letter=5f2b as=redriven actor=ada queue=charges job=op-1',
  ],
  [
    { kind: 'refused', ...subject, reason: 'dead' },
    'log',
    'refused charge tenant=acme key=charge:order-17:1 reason=dead queue=charges job=op-1',
  ],
  [
    { kind: 'handed_back', ...subject, times: 1 },
    'debug',
    'handed_back charge tenant=acme key=charge:order-17:1 times=1 queue=charges job=op-1',
  ],
  [
    { kind: 'handed_back', ...subject, times: 2 },
    'warn',
    'handed_back charge tenant=acme key=charge:order-17:1 times=2 queue=charges job=op-1',
  ],
  [
    { kind: 'handed_back', ...subject, times: 3 },
    'debug',
    'handed_back charge tenant=acme key=charge:order-17:1 times=3 queue=charges job=op-1',
  ],
  [
    { kind: 'handed_back', ...subject, times: 4 },
    'warn',
    'handed_back charge tenant=acme key=charge:order-17:1 times=4 queue=charges job=op-1',
  ],
  [
    { kind: 'conflict_refused', ...subject, jobId: '' },
    'warn',
    'conflict_refused charge tenant=acme key=charge:order-17:1 queue=charges job=',
  ],
  [
    { kind: 'started', ...subject, stepOf: 'charge:order-17', attempt: 1, runId: 'w' },
    'debug',
    'started charge tenant=acme key=charge:order-17:1 step_of=charge:order-17 attempt=1 run=w queue=charges job=op-1',
  ],
  [
    { kind: 'circuit_changed', dependency: 'gateway', state: 'open' },
    'warn',
    'circuit_changed gateway tenant=- key=- dependency=gateway state=open',
  ],
  [
    { kind: 'dependency_timeout', ...subject, dependency: 'gateway' },
    'warn',
    'dependency_timeout charge tenant=acme key=charge:order-17:1 dependency=gateway queue=charges job=op-1',
  ],
  [
    { kind: 'retry_budget_denied', ...subject, dependency: 'gateway' },
    'debug',
    'retry_budget_denied charge tenant=acme key=charge:order-17:1 dependency=gateway queue=charges job=op-1',
  ],
  [
    { kind: 'fallback_used', ...subject, dependency: 'gateway', reason: 'circuit_open' },
    'warn',
    'fallback_used charge tenant=acme key=charge:order-17:1 dependency=gateway reason=circuit_open queue=charges job=op-1',
  ],
];

describe('logEvents', () => {
  it.each(TABLE.map(([event, level, line]) => ({ kind: event.kind, event, level, line })))(
    'writes one line at $level for $kind: $line',
    ({ event, level, line }) => {
      const { events, lines } = listen();
      events.emit(event);
      expect(lines).toEqual([[level, line]]);
    },
  );

  it('writes a dash for a tenant and a key that nobody knows', () => {
    const { events, lines } = listen();
    events.emit({
      kind: 'deferred',
      queue: 'q',
      jobName: 'n',
      jobId: '1',
      delayMs: 1,
      cause: 'busy',
      detail: 'r',
    });
    expect(lines).toEqual([
      ['warn', 'deferred n tenant=- key=- delay_ms=1 cause=busy detail=r queue=q job=1'],
    ]);
  });

  it('keeps to one line, and to one value per name, whatever a message holds', () => {
    const { events, lines } = listen();
    events.emit({ ...TABLE.at(7)![0], error: 'line 1\nline 2 tenant=globex' } as JobEvent);
    const [[, line]] = lines as [[Level, string]];
    expect(line).not.toContain('\n');
    expect(line).toContain(String.raw`error="line 1\nline 2 tenant=globex"`);
  });

  it.each([
    ['tenant=globex', '"tenant=globex"'],
    ['say "no"', String.raw`"say \"no\""`],
    ['a\tb', String.raw`"a\tb"`],
    ['plain:text/1', 'plain:text/1'],
  ])('quotes a value that could be read as more than one: %s', (error, written) => {
    const { events, lines } = listen();
    events.emit({ kind: 'in_doubt', ...subject, ...DOUBT, failureCode: 'r', error });
    expect(lines.at(0)!.at(1)).toContain(` error=${written} queue=`);
  });

  it.each([
    ['charge tenant=globex', '"charge tenant=globex"'],
    ['charge\ndead', String.raw`"charge\ndead"`],
    ['say "no"', String.raw`"say \"no\""`],
    ['charge:v2/eu', 'charge:v2/eu'],
  ])('quotes a job name that could be read as more than one word: %s', (jobName, written) => {
    const { events, lines } = listen();
    events.emit({ kind: 'replayed', ...subject, jobName });
    expect(lines).toEqual([
      ['log', `replayed ${written} tenant=acme key=charge:order-17:1 queue=charges job=op-1`],
    ]);
  });

  it('writes only what may need a look when told to tell of problems', () => {
    const { events, lines } = listen('problems');
    for (const [event] of TABLE) events.emit(event);
    expect(lines.map(([, line]) => line.split(' ')[0])).toEqual([
      'retrying',
      'retrying',
      'in_doubt',
      'dead',
      'deferred',
      'taken_over',
      'abandoned',
      'late_result_discarded',
      'fence_rejected',
      'handed_back',
      'handed_back',
      'conflict_refused',
      'circuit_changed',
      'dependency_timeout',
      'fallback_used',
    ]);
  });

  it('writes nothing at a level that the application has turned off', () => {
    const { events, lines } = listen('all', () => new ConsoleLogger('any', { logLevels: ['error'] }));
    for (const [event] of TABLE) events.emit(event);
    expect(lines.map(([level]) => level)).toEqual(['error', 'error']);
  });

  it.each([
    ['where nobody has set levels', () => new ConsoleLogger()],
    ['to a logger that does not say which levels are on', () => ({})],
  ])('writes all %s', (_where, writer) => {
    const { events, lines } = listen('all', writer);
    for (const [event] of TABLE) events.emit(event);
    expect(lines).toHaveLength(TABLE.length);
  });

  it('writes nothing where logging is off', () => {
    const { events, lines } = listen('all', () => undefined);
    for (const [event] of TABLE) events.emit(event);
    expect(lines).toEqual([]);
  });

  it('stops when told to', () => {
    const { events, lines, stop } = listen();
    stop();
    events.emit(TABLE.at(0)![0]);
    expect(lines).toEqual([]);
    expect(events.isObserved).toBe(false);
  });
});
