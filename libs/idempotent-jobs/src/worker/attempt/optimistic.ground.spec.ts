import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Look } from '../../ledger/claim/optimistic.store.js';
import type { GroundServices } from './ground.js';
import { OptimisticGround } from './optimistic.ground.js';
import type { OperationRun } from './operation-run.js';

const UNTOUCHED = { kind: 'untouched', claim: { token: 0 } } as Look;
const UNSURE: Look = { kind: 'unsure' };

/** A ground whose operation is seen so, after `lookMs`, and whose claims are all `busy`. */
function make(look: Look, { lookMs = 0, job = {} }: { lookMs?: number; job?: object } = {}) {
  vi.useFakeTimers({ toFake: ['Date'] });
  const claims = vi.fn(async () => ({ kind: 'busy', leaseLeftMs: 5 }));
  const services = {
    optimistic: {
      look: async () => {
        vi.setSystemTime(Date.now() + lookMs);
        return look;
      },
    },
    claims: { claim: claims },
  };
  const run = {
    rules: { claim: { leaseMs: 30_000 } },
    subject: {},
    identified: { tenantId: 'acme', operationKey: 'charge:1', rowMs: 1 },
    job: { attemptsStarted: 1, attemptsMade: 0, stalledCounter: 0, stacktrace: [], ...job },
  };
  const ground = new OptimisticGround(run as unknown as OperationRun, services as unknown as GroundServices);
  return { ground, claims };
}

describe('OptimisticGround', () => {
  afterEach(() => vi.useRealTimers());

  it('claims nothing where nothing is known of the operation', async () => {
    const { ground, claims } = make(UNTOUCHED);
    expect(await ground.claim()).toEqual({ kind: 'acquired', claim: { token: 0 } });
    expect(claims).not.toHaveBeenCalled();
  });

  it.each([
    ['of which something is known', UNSURE, {}],
    ['whose job was started before', UNTOUCHED, { job: { attemptsStarted: 2 } }],
    ['whose job stalled before', UNTOUCHED, { job: { stalledCounter: 1 } }],
    ['that was seen longer ago than a lease lasts', UNTOUCHED, { lookMs: 27_000 }],
  ])('claims an operation %s', async (_what, look, circumstances) => {
    const { ground, claims } = make(look, circumstances);
    expect(await ground.claim()).toEqual({ kind: 'busy', leaseLeftMs: 5 });
    expect(claims).toHaveBeenCalledOnce();
  });
});
