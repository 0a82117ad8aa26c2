/** The outside world for tests, sample and demo: start it as a process of its own, then ask and tell it. */
export { startSimulator } from './client/start-simulator.js';
export type { RunningSimulator, StartSimulatorOptions } from './client/start-simulator.js';
export type { SimulatorAddress } from './simulator.js';
export { SimulatorClient } from './client/simulator-client.js';
export type { ArrivalOutcome, Charge, LedgerEntry, Mail } from './ledger/ledger-entry.js';
export type { DeliveredMail } from './mailbox/post-office.js';
export type { FaultCounts, FaultKind, PlannedKind, ScriptStep, Service } from './faults/fault-kinds.js';
export type { FaultScript, FaultSettings } from './faults/fault-settings.js';
