import { describe, expect, it } from 'vitest';
import type { Claim } from '../../ledger/claim/claim.js';
import type { Due } from '../../producer/due.js';
import { AttemptRunner } from './attempt.runner.js';
import type { AttemptRecorder } from './attempt.recorder.js';
import type { AttemptReporter } from './attempt.reporter.js';
import type { Ground } from './ground.js';
import type { Grounds } from './grounds.js';
import { HandlerRun } from './handler-run.js';
import type { OperationRun } from './operation-run.js';
import type { Reconciler } from './reconciler.js';

const CLAIM = { tenantId: 'acme', operationKey: 'charge:1', attempt: 1, repeatableMs: 0 } as Claim;

/** An attempt whose claim is won, and whose ground fails at everything that it is told to write. */
function scene() {
  const did: string[] = [];
  const failing = async (what: string): Promise<never> => {
    did.push(what);
    throw new Error('Postgres is away');
  };
  const ground = {
    takesBack: false,
    isNearlyOver: false,
    claim: async () => ({ kind: 'acquired', claim: CLAIM }),
    open: async () => undefined,
    abandon: async () => undefined,
    complete: () => failing('complete'),
    release: () => failing('release'),
    forgo: () => did.push('forgo'),
    leave: async () => void did.push('leave'),
  } as unknown as Ground;
  const run = {
    rules: {
      effect: 'unrepeatable',
      timeoutMs: 1_000,
      policy: {},
      results: { isStored: true, maxBytes: 100 },
      claim: {},
    },
    subject: { queue: 'charges', jobName: 'charge', jobId: '1' },
    identified: { tenantId: 'acme', operationKey: 'charge:1' },
    handlerRun: new HandlerRun(() => undefined),
  } as unknown as OperationRun;
  const attempts = new AttemptRunner(
    { of: (of: OperationRun) => Object.assign(ground, { run: of }) } as unknown as Grounds,
    { mayRun: () => true } as unknown as AttemptRecorder,
    {} as Reconciler,
    { started: () => undefined, tell: () => undefined } as unknown as AttemptReporter,
    {} as Due,
  );
  return { attempts, run, did };
}

describe('an attempt whose end cannot be written', () => {
  it('gives its claim back where the handler was not called', async () => {
    const { attempts, run, did } = scene();
    let calls = 0;
    run.handlerRun.abandon('cancelled');
    await expect(attempts.run(run, async () => (calls += 1), undefined)).rejects.toThrow('Postgres is away');
    expect(calls).toBe(0);
    expect(did).toEqual(['release', 'forgo', 'leave']);
  });

  it('keeps it where the handler was called: its effect may have happened', async () => {
    const { attempts, run, did } = scene();
    await expect(attempts.run(run, async () => 'charged', undefined)).rejects.toThrow('Postgres is away');
    expect(did).toEqual(['complete', 'leave']);
  });
});
