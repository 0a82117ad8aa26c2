import { describe, expect, it } from 'vitest';
import { FaultDesk } from './fault-desk.js';
import { checkScript, checkSettings, InvalidRequestError } from './fault-settings.js';

const arrival = { run: 'r', service: 'charge', tenant: 'acme', subject: 'order-1' } as const;

describe('FaultDesk', () => {
  it('hands out the steps of a script in order, then none', () => {
    const desk = new FaultDesk();
    desk.script('r', { service: 'charge', steps: ['answer_lost', 'ok', 'late'], slowMs: 5 });
    const kinds = [1, 2, 3, 4].map(() => desk.arrive(arrival).fault?.kind);
    expect(kinds).toEqual(['answer_lost', undefined, 'late', undefined]);
  });

  it.each([
    { other: 'run', change: { run: 'elsewhere' } },
    { other: 'service', change: { service: 'mail' } },
    { other: 'tenant', change: { tenant: 'globex' } },
    { other: 'subject', change: { subject: 'order-2' } },
  ] as const)('keeps a script for its own $other', ({ change }) => {
    const desk = new FaultDesk();
    desk.script('r', { service: 'charge', tenant: 'acme', subject: 'order-1', steps: ['hang'] });
    expect(desk.arrive({ ...arrival, ...change }).fault).toBeUndefined();
    expect(desk.arrive(arrival).fault?.kind).toBe('hang');
  });

  it('finds the script of a mail by its recipient alone', () => {
    const desk = new FaultDesk();
    desk.script('r', { service: 'mail', subject: 'a@acme.test', steps: ['refused'] });
    const mail = { ...arrival, service: 'mail', subject: 'a@acme.test Receipt' } as const;
    expect(desk.arrive(mail).fault?.kind).toBe('refused');
  });

  it('puts a script before the plan, and counts the arrivals that it took', () => {
    const desk = new FaultDesk();
    desk.plan('r', { service: 'charge', rate: 1, kinds: ['slow'], slowMs: 70 });
    desk.script('r', { service: 'charge', steps: ['ok'] });
    expect(desk.arrive(arrival)).toEqual({ ordinal: 1, fault: undefined });
    expect(desk.arrive(arrival)).toEqual({
      ordinal: 2,
      fault: { kind: 'slow', slowMs: 70, retryAfterSeconds: 1 },
    });
    expect(desk.arrive(arrival)).toEqual({ ordinal: 3, fault: undefined });
  });

  it('goes on counting where an earlier life had arrived', () => {
    const desk = new FaultDesk();
    desk.recall(arrival, 4);
    expect(desk.arrive(arrival).ordinal).toBe(5);
  });

  it('ends the faults but keeps their counts and the manners of the gateway when cleared', () => {
    const desk = new FaultDesk();
    desk.plan('r', { service: 'charge', rate: 1, kinds: ['slow'], honourKeys: false });
    desk.happened('r', 'charge', 'slow');
    desk.clear('r');
    expect(desk.arrive(arrival).fault).toBeUndefined();
    expect(desk.counts('r')).toEqual({ charge: { slow: 1 }, mail: {} });
    expect(desk.honoursKeys('r')).toBe(false);
    desk.reset('r');
    expect(desk.counts('r')).toEqual({ charge: {}, mail: {} });
    expect(desk.honoursKeys('r')).toBe(true);
  });
});

describe('the checks of what clients ask', () => {
  it.each([
    [null, 'JSON object'],
    [{ service: 'fax' }, 'service'],
    [{ service: 'mail', rate: 2 }, 'rate'],
    [{ service: 'mail', rate: 0.5 }, 'at least one'],
    [{ service: 'mail', kinds: ['late'] }, 'kinds'],
    [{ service: 'mail', slowMs: -1 }, 'slowMs'],
    [{ service: 'charge', honourKeys: 'no' }, 'honourKeys'],
  ])('refuse the settings %j, naming what is wrong', (body, name) => {
    expect(() => checkSettings(body)).toThrow(InvalidRequestError);
    expect(() => checkSettings(body)).toThrow(name);
  });

  it.each([
    [{ service: 'mail' }, 'steps'],
    [{ service: 'mail', steps: ['explode'] }, 'steps'],
    [{ service: 'mail', steps: [], tenant: 1 }, 'tenant'],
  ])('refuse the script %j, naming what is wrong', (body, name) => {
    expect(() => checkScript(body)).toThrow(name);
  });
});
