import { describe, expect, it } from 'vitest';
import { isSettled, OPERATION_STATUSES, type OperationStatus, TRANSITIONS } from './status.js';

/** design.md, section 3: every arrow of the picture, and the shortcuts that the claim's answers add to it. */
const ARROWS = [
  'pending → running: claim',
  'pending → dead: refuse',
  'running → running: take over',
  'running → completed: complete',
  'running → retrying: fail',
  'running → in_doubt: doubt',
  'running → dead: give up',
  'retrying → running: claim',
  'retrying → in_doubt: doubt',
  'retrying → dead: refuse',
  'in_doubt → completed: resolve as applied',
  'in_doubt → retrying: resolve as not applied',
  'in_doubt → dead: give up',
  'dead → pending: redrive',
];

describe('the status of an operation', () => {
  it('is one of six', () => {
    expect([...OPERATION_STATUSES].toSorted()).toEqual([
      'completed',
      'dead',
      'in_doubt',
      'pending',
      'retrying',
      'running',
    ]);
  });

  it('changes along these arrows and no other', () => {
    const arrows = Object.entries(TRANSITIONS).flatMap(([from, steps]) =>
      Object.entries(steps).map(([to, verb]) => `${from} → ${to}: ${verb}`),
    );
    expect(arrows.toSorted()).toEqual(ARROWS.toSorted());
  });

  it('has a row in the table for every status, and every arrow ends at a status', () => {
    expect(Object.keys(TRANSITIONS).toSorted()).toEqual([...OPERATION_STATUSES].toSorted());
    for (const steps of Object.values(TRANSITIONS)) {
      for (const to of Object.keys(steps)) expect(OPERATION_STATUSES).toContain(to);
    }
  });

  it('can get from pending to every other status', () => {
    const reached = new Set<OperationStatus>(['pending']);
    for (const from of reached) {
      for (const to of Object.keys(TRANSITIONS[from])) reached.add(to as OperationStatus);
    }
    expect(reached.size).toBe(6);
  });

  it.each<[OperationStatus, boolean]>([
    ['pending', false],
    ['running', false],
    ['retrying', false],
    ['in_doubt', false],
    ['completed', true],
    ['dead', true],
  ])('%s is settled: %s', (status, settled) => {
    expect(isSettled(status)).toBe(settled);
  });

  it('never leaves completed, and leaves dead only by a redrive', () => {
    expect(TRANSITIONS.completed).toEqual({});
    expect(TRANSITIONS.dead).toEqual({ pending: 'redrive' });
  });

  it('enters completed only from where an effect may have happened', () => {
    const before = OPERATION_STATUSES.filter((from) => 'completed' in TRANSITIONS[from]);
    expect(before).toEqual(['running', 'in_doubt']);
  });
});
