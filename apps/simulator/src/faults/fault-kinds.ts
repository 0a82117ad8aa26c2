/** The services of the outside world. */
export type Service = 'charge' | 'mail';

export const SERVICES: readonly Service[] = ['charge', 'mail'];

/** The faults that a plan may choose from. */
export const PLANNED_KINDS = [
  'answer_lost',
  'error_after_effect',
  'slow',
  'refused',
  'throttled',
  'hang',
] as const;

/** What can go wrong with an arrival. */
export type FaultKind =
  /** The effect happens; the connection breaks off instead of an answer. */
  | 'answer_lost'
  /** The effect happens; the answer says that it did not: HTTP 500, SMTP 451. */
  | 'error_after_effect'
  /** The effect happens; the answer takes its time. */
  | 'slow'
  /** Nothing happens: HTTP 503, SMTP 421. */
  | 'refused'
  /** Nothing happens: HTTP 429 with Retry-After, SMTP 450. */
  | 'throttled'
  /** The effect happens; no answer ever comes, until the client gives up. */
  | 'hang'
  /** The effect happens only after a while, whether or not the client still waits for it. */
  | 'late';

/** The kinds that a plan may choose from. After `hang` a retry comes only from clients that give up by themselves. */
export type PlannedKind = (typeof PLANNED_KINDS)[number];

/** One step of a script: a fault, or `ok` for none. */
export type ScriptStep = FaultKind | 'ok';

export const SCRIPT_STEPS: readonly ScriptStep[] = [...PLANNED_KINDS, 'late', 'ok'];

/** A fault that an arrival suffers. */
export interface Fault {
  readonly kind: FaultKind;
  /** How long `slow` and `late` take. */
  readonly slowMs: number;
  /** What `throttled` asks the client to wait. */
  readonly retryAfterSeconds: number;
}

/** How often each fault really happened: `{ charge: { slow: 2 }, mail: {} }`. */
export type FaultCounts = Record<Service, Partial<Record<FaultKind, number>>>;
