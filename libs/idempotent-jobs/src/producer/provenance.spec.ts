import { describe, expect, it } from 'vitest';
import { jobIdOf } from '../operation/identity.js';
import { provenanceOf } from './envelope.js';

const acme = { tenantId: 'acme', operationKey: 'charge:1' };
const globex = { ...acme, tenantId: 'globex' };
const ID = jobIdOf(acme);
const data = (operation: object = {}): unknown => ({
  operation: { ...acme, fingerprint: 'f', ...operation },
  payload: {},
});

describe('provenanceOf', () => {
  it.each([ID, `${ID}-lx3k`, `${ID}-r2`, `${ID}-a_B-9`])('knows the id of an operation: %s', (id) => {
    expect(provenanceOf({ id, data: data() })).toMatchObject({
      kind: 'ours',
      identity: acme,
      dueAt: undefined,
    });
  });

  it('knows the id of an iteration, and when it was due', () => {
    const iteration = provenanceOf({ id: `repeat:${ID}:1767225600000`, data: data({ isSchedule: true }) });
    const dueAt = new Date(Date.UTC(2026, 0, 1));
    const identity = { ...acme, operationKey: 'charge:1:2026-01-01T00:00:00.000Z' };
    expect(iteration).toMatchObject({ kind: 'ours', identity, dueAt });
  });

  it.each([
    ['of another operation', jobIdOf(globex), data(), true],
    ['of another operation, with a suffix', `${jobIdOf(globex)}-r2`, data(), true],
    ['of an iteration, in data that says otherwise', `repeat:${ID}:1`, data(), true],
    ['of an operation, in data of a schedule', ID, data({ isSchedule: true }), true],
    [
      'of an operation, in data that only almost says so',
      ID,
      data({ isSchedule: 'yes', tenantId: 'globex' }),
      true,
    ],
    ['of an operation, in data without a tenant', ID, data({ tenantId: { a: 1 } }), true],
    ['of an operation, and something behind it', `${ID}x`, data(), false],
    ['that only begins like one', 'op-17', data(), false],
    ['of BullMQ', '17', data(), false],
    ['that is none', undefined, data(), false],
  ])('does not take its data for an envelope under an id %s', (_title, id, asked, hasDerivedId) => {
    expect(provenanceOf({ ...(id !== undefined && { id }), data: asked })).toMatchObject({
      kind: 'unconfirmed',
      hasDerivedId,
    });
  });

  it.each([null, 17, 'text', [], {}, { operation: acme, payload: {} }])('knows plain data: %o', (plain) => {
    expect(provenanceOf({ id: ID, data: plain })).toEqual({ kind: 'plain' });
  });
});
