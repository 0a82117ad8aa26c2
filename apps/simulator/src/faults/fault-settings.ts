/** What clients ask of the faults, checked: a typing error must not become a test without faults. */
import {
  PLANNED_KINDS,
  SCRIPT_STEPS,
  SERVICES,
  type PlannedKind,
  type ScriptStep,
  type Service,
} from './fault-kinds.js';

/** Faults by chance, but the same chance every time. `PUT /faults` replaces the plan of its run and service. */
export interface FaultSettings {
  /** Default: `default`. */
  readonly run?: string;
  readonly service: Service;
  /** Decides which arrivals suffer. Default: 0. */
  readonly seed?: number | string;
  /** The share of the eligible arrivals that suffer, 0 to 1. Default: 0. */
  readonly rate?: number;
  /** Which faults, each as likely as the others. Default: none. */
  readonly kinds?: readonly PlannedKind[];
  /** Default: 1000. */
  readonly slowMs?: number;
  /** Default: 1. */
  readonly retryAfterSeconds?: number;
  /** Only that many first arrivals of a subject may suffer, so that retrying leads somewhere. Default: 2. */
  readonly maxFaultsPerSubject?: number;
  /** Charges only: `false` makes each call an effect, whatever its key. Stays as it is when left out; first: true. */
  readonly honourKeys?: boolean;
}

/** Faults word for word, taken in order by the arrivals that match; they go before the plan. */
export interface FaultScript {
  /** Default: `default`. */
  readonly run?: string;
  readonly service: Service;
  /** Only arrivals of this tenant. Default: of any. */
  readonly tenant?: string;
  /** Only arrivals of this order (charge), recipient, or `recipient subject line` (mail). Default: of any. */
  readonly subject?: string;
  readonly steps: readonly ScriptStep[];
  /** Default: 1000. */
  readonly slowMs?: number;
  /** Default: 1. */
  readonly retryAfterSeconds?: number;
}

/** Thrown for a request that makes no sense; its message is the answer. */
export class InvalidRequestError extends Error {}

/** @throws InvalidRequestError */
export function checkSettings(body: unknown): FaultSettings {
  const settings = checkCommon(body) as FaultSettings & Record<string, unknown>;
  const { rate = 0, kinds = [], honourKeys } = settings;
  demand(typeof rate === 'number' && rate >= 0 && rate <= 1, 'rate is a number from 0 to 1');
  demand(areOneOf(kinds, PLANNED_KINDS), `kinds is a list of ${PLANNED_KINDS.join(', ')}`);
  demand(rate === 0 || kinds.length > 0, 'a rate above 0 needs at least one of the kinds');
  demand(isCount(settings.maxFaultsPerSubject), 'maxFaultsPerSubject is a number from 0');
  demand(honourKeys === undefined || typeof honourKeys === 'boolean', 'honourKeys is true or false');
  return settings;
}

/** @throws InvalidRequestError */
export function checkScript(body: unknown): FaultScript {
  const script = checkCommon(body) as FaultScript & Record<string, unknown>;
  demand(areOneOf(script.steps, SCRIPT_STEPS), `steps is a list of ${SCRIPT_STEPS.join(', ')}`);
  demand(isText(script.tenant), 'tenant is a string');
  demand(isText(script.subject), 'subject is a string');
  return script;
}

function checkCommon(body: unknown): Record<string, unknown> {
  demand(typeof body === 'object' && body !== null, 'the body is a JSON object');
  const common = body as Record<string, unknown>;
  demand(SERVICES.includes(common.service as Service), `service is one of ${SERVICES.join(', ')}`);
  demand(isText(common.run), 'run is a string');
  demand(isCount(common.slowMs), 'slowMs is a number from 0');
  demand(isCount(common.retryAfterSeconds), 'retryAfterSeconds is a number from 0');
  return common;
}

function demand(isMet: boolean, sentence: string): void {
  if (!isMet) throw new InvalidRequestError(sentence);
}

function isText(value: unknown): boolean {
  return value === undefined || typeof value === 'string';
}

function isCount(value: unknown): boolean {
  return value === undefined || (typeof value === 'number' && value >= 0);
}

function areOneOf(values: unknown, allowed: readonly string[]): boolean {
  return Array.isArray(values) && values.every((value) => allowed.includes(value as string));
}
