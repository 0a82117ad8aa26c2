import { describe, expect, it } from 'vitest';
import type { QueuePort } from '../../bullmq/queue-port.js';
import { Dependencies } from '../../resilience/dependency/dependencies.js';
import type { Dependency } from '../../resilience/dependency/dependency.js';
import {
  type DependencyOptions,
  resolveDependencies,
} from '../../resilience/dependency/dependency.options.js';
import { JobEvents } from '../../events/job-events.js';
import { optionChecks } from '../../option-checks/option-checks.js';
import { pauseWhileOpen } from './queue-pause.js';

/** Two failures open a circuit for a second, without spreading. */
const OPTIONS: DependencyOptions = { breaker: { minimumCalls: 2, openMs: 1_000, successes: 1 } };

/** Two dependencies, a queue of each, and what was done to the queues. */
class Bench {
  nowMs = 0;
  readonly done: string[] = [];
  readonly errors: [string, unknown][] = [];
  readonly events = new JobEvents();
  readonly gateway: Dependency;
  readonly mailer: Dependency;
  readonly stop: () => void;
  broken: Error | undefined;

  constructor() {
    const rules = resolveDependencies(optionChecks('test'), { gateway: OPTIONS, mailer: OPTIONS });
    const dependencies = new Dependencies(
      { dependencies: rules },
      this.events,
      () => this.nowMs,
      () => 0.5,
    );
    this.gateway = dependencies.named('gateway');
    this.mailer = dependencies.named('mailer');
    this.stop = pauseWhileOpen(
      this.events,
      [
        { port: this.#port('charges'), dependency: this.gateway },
        { port: this.#port('refunds'), dependency: this.gateway },
        { port: this.#port('mails'), dependency: this.mailer },
      ],
      (message, error) => this.errors.push([message, error]),
    );
  }

  #port(name: string): QueuePort {
    const change = async (what: string): Promise<void> => {
      if (this.broken !== undefined) throw this.broken;
      this.done.push(`${name} ${what}`);
    };
    return {
      name,
      holdBack: (ms: number) => change(`held back for ${ms}`),
      letGo: () => change('let go'),
    } as unknown as QueuePort;
  }

  calls(dependency: Dependency, end: 'succeed' | 'fail', times = 1): void {
    for (let call = 0; call < times; call += 1) {
      const entry = dependency.enter(100);
      if (entry.kind === 'rejected') throw new Error(`Held: ${entry.cause}`);
      if (end === 'succeed') entry.succeeded({});
      else entry.failed(undefined, { kind: 'transient', code: 'ECONNREFUSED' }, {});
      entry.leave();
    }
  }

  /** What was done since the last look. */
  async look(): Promise<string[]> {
    for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
    return this.done.splice(0);
  }
}

describe('pauseWhileOpen', () => {
  it('listens to nobody where no queue asks for it', () => {
    const events = new JobEvents();
    pauseWhileOpen(events, [], () => undefined)();
    expect(events.isObserved).toBe(false);
  });

  it('holds back the queues of the dependency whose circuit opens, for as long as it is open, and no others', async () => {
    const bench = new Bench();
    bench.calls(bench.gateway, 'fail', 2);
    expect(await bench.look()).toEqual(['charges held back for 1000', 'refunds held back for 1000']);
    bench.calls(bench.mailer, 'fail', 2);
    expect(await bench.look()).toEqual(['mails held back for 1000']);
  });

  it('does nothing when the circuit is half open: the time is over, and a probe is on its way', async () => {
    const bench = new Bench();
    bench.calls(bench.gateway, 'fail', 2);
    await bench.look();
    bench.nowMs = 1_000;
    const probe = bench.gateway.enter(100);
    expect(bench.gateway.state.circuit).toBe('half_open');
    expect(await bench.look()).toEqual([]);
    if (probe.kind === 'admitted') probe.succeeded({});
    expect(await bench.look()).toEqual(['charges let go', 'refunds let go']);
  });

  it('holds back for longer when the probe fails', async () => {
    const bench = new Bench();
    bench.calls(bench.gateway, 'fail', 2);
    await bench.look();
    bench.nowMs = 1_000;
    bench.calls(bench.gateway, 'fail');
    expect(await bench.look()).toEqual(['charges held back for 2000', 'refunds held back for 2000']);
  });

  it('does what a person decides, at once', async () => {
    const bench = new Bench();
    bench.mailer.force('open');
    expect(await bench.look()).toEqual(['mails held back for 1000']);
    bench.mailer.force('closed');
    expect(await bench.look()).toEqual(['mails let go']);
    bench.mailer.force('open');
    await bench.look();
    bench.mailer.resetCircuit();
    expect(await bench.look()).toEqual(['mails let go']);
  });

  /** A job of the dependency was put off. */
  const putOff = (bench: Bench, cause: 'circuit_open' | 'bulkhead_full' | 'busy'): void =>
    bench.events.emit({
      kind: 'deferred',
      queue: 'mails',
      jobName: 'mail',
      jobId: 'op-1',
      delayMs: 500,
      cause,
      detail: 'lets nothing through',
      ...(cause !== 'busy' && { dependency: 'mailer' }),
    });

  it('holds back again when a job was taken although the circuit is open: a person keeps it so for longer', async () => {
    const bench = new Bench();
    bench.mailer.force('open');
    await bench.look();
    putOff(bench, 'circuit_open');
    expect(await bench.look()).toEqual(['mails held back for 1000']);
  });

  it('holds back nothing for jobs that are put off for another reason, or while a probe is on its way', async () => {
    const bench = new Bench();
    putOff(bench, 'bulkhead_full');
    putOff(bench, 'busy');
    bench.calls(bench.mailer, 'fail', 2);
    await bench.look();
    bench.nowMs = 1_000;
    bench.mailer.enter(100);
    putOff(bench, 'circuit_open');
    expect(await bench.look()).toEqual([]);
  });

  it('tells of a queue that could not be paused or resumed, and goes on', async () => {
    const bench = new Bench();
    bench.broken = new Error('Connection is closed');
    bench.gateway.force('open');
    await bench.look();
    expect(bench.errors).toEqual([
      ['Queue "charges" could not be paused or resumed with "gateway"', bench.broken],
      ['Queue "refunds" could not be paused or resumed with "gateway"', bench.broken],
    ]);
    bench.broken = undefined;
    bench.gateway.force('closed');
    expect(await bench.look()).toEqual(['charges let go', 'refunds let go']);
  });

  it('does nothing any more once it is stopped', async () => {
    const bench = new Bench();
    bench.stop();
    bench.gateway.force('open');
    expect(await bench.look()).toEqual([]);
    expect(bench.events.isObserved).toBe(false);
  });
});
