/**
 * Who decides about faults: it counts the arrivals of each subject, asks the scripts and then the plan, and counts the
 * faults that really happened, so that a test can prove that it tested something.
 */
import type { Fault, FaultCounts, FaultKind, ScriptStep, Service } from './fault-kinds.js';
import type { FaultScript, FaultSettings } from './fault-settings.js';
import { plannedFault } from './planned-fault.js';

/** Something that has come to one of the services. */
export interface Subject {
  readonly run: string;
  readonly service: Service;
  readonly tenant: string;
  readonly subject: string;
}

interface RunFaults {
  readonly plans: Map<Service, FaultSettings>;
  scripts: { readonly script: FaultScript; readonly steps: ScriptStep[] }[];
  readonly ordinals: Map<string, number>;
  readonly counts: FaultCounts;
  honoursKeys: boolean;
}

const DEFAULT_SLOW_MS = 1_000;
const DEFAULT_RETRY_AFTER_SECONDS = 1;

export class FaultDesk {
  private readonly runs = new Map<string, RunFaults>();

  /** Replaces the plan of a run and service. */
  plan(run: string, settings: FaultSettings): void {
    const faults = this.of(run);
    faults.plans.set(settings.service, settings);
    if (settings.honourKeys !== undefined) faults.honoursKeys = settings.honourKeys;
  }

  /** Adds a script behind those that are there. */
  script(run: string, script: FaultScript): void {
    this.of(run).scripts.push({ script, steps: [...script.steps] });
  }

  /** Ends the faults. Their counts stay, and so does `honourKeys`: that is how the service is, not what befell it. */
  clear(run: string): void {
    const faults = this.of(run);
    faults.plans.clear();
    faults.scripts = [];
  }

  /** Forgets all about a run. */
  reset(run: string): void {
    this.runs.delete(run);
  }

  /** Whether the gateway answers a known key with the charge that it stands for. */
  honoursKeys(run: string): boolean {
    return this.of(run).honoursKeys;
  }

  /** Counts the arrival and says what is to befall it. */
  arrive(arrival: Subject): { readonly ordinal: number; readonly fault: Fault | undefined } {
    const { run, service, tenant, subject } = arrival;
    const faults = this.of(run);
    const name = nameOf(arrival);
    const ordinal = (faults.ordinals.get(name) ?? 0) + 1;
    faults.ordinals.set(name, ordinal);

    const scripted = faults.scripts.find((one) => one.steps.length > 0 && matches(one.script, arrival));
    if (scripted) {
      const step = scripted.steps.shift()!;
      return { ordinal, fault: step === 'ok' ? undefined : faultOf(step, scripted.script) };
    }
    const plan = faults.plans.get(service);
    const kind = plan && plannedFault(plan, { service, tenant, subject, ordinal });
    return { ordinal, fault: kind && faultOf(kind, plan) };
  }

  /** Goes on counting where an earlier life of the simulator had arrived. */
  recall(arrival: Subject, ordinal: number): void {
    const { ordinals } = this.of(arrival.run);
    const name = nameOf(arrival);
    ordinals.set(name, Math.max(ordinals.get(name) ?? 0, ordinal));
  }

  /** Notes that a fault has really happened. */
  happened(run: string, service: Service, kind: FaultKind): void {
    const counts = this.of(run).counts[service];
    counts[kind] = (counts[kind] ?? 0) + 1;
  }

  /** The faults that have really happened since the run began. */
  counts(run: string): FaultCounts {
    return this.of(run).counts;
  }

  private of(run: string): RunFaults {
    let faults = this.runs.get(run);
    if (!faults) {
      const counts = { charge: {}, mail: {} };
      faults = { plans: new Map(), scripts: [], ordinals: new Map(), counts, honoursKeys: true };
      this.runs.set(run, faults);
    }
    return faults;
  }
}

function nameOf({ service, tenant, subject }: Subject): string {
  return JSON.stringify([service, tenant, subject]);
}

function matches(script: FaultScript, arrival: Subject): boolean {
  if (script.service !== arrival.service) return false;
  if (script.tenant !== undefined && script.tenant !== arrival.tenant) return false;
  if (script.subject === undefined || script.subject === arrival.subject) return true;
  // The subject of a mail is `recipient subject line`; the recipient alone is enough to mean it.
  return arrival.service === 'mail' && arrival.subject.startsWith(`${script.subject} `);
}

function faultOf(kind: FaultKind, settings: { slowMs?: number; retryAfterSeconds?: number } = {}): Fault {
  const { slowMs = DEFAULT_SLOW_MS, retryAfterSeconds = DEFAULT_RETRY_AFTER_SECONDS } = settings;
  return { kind, slowMs, retryAfterSeconds };
}
