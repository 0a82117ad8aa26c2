import type { CallOptions } from 'nestjs-idempotent-jobs/calls';
import type { Effect } from 'nestjs-idempotent-jobs/types';
import type { Place } from './place.js';

/** What a process beside the tests is told to do (see `program.ts`): to work, unless it has another role. */
export type Script = WorkerScript | CallerScript | ProducerScript | RedriverScript;

/** What a worker process is told to do. */
export interface WorkerScript {
  readonly role?: undefined;
  readonly place: Place;
  readonly effect: Effect;
  /** Whether first attempts are made without a claim. Default false. */
  readonly optimistic?: boolean;
  readonly leaseMs: number;
  /**
   * What the handler does. `charge`: call the gateway. `die`: kill the own process with SIGKILL before the call; `die before the claim`: in a guard, before the ledger is asked. `write`:
   * insert a row; `write and hold`: and never return. `work`: note the start in the table `work`, work for `workMs`, and
   * note the end; told to stop, stop. `work until told`: likewise, but begin to work when the process is told to end. `two steps`: call the gateway in each of two keyed steps. `write fenced`: after `workMs`, write the own process id to the row of `accounts` under the fencing token, and tell how that went. `bury and hold`: fail for good, and never return when told of the dead letter.
   * `block until told`: make the file `tellBy` with `.blocked`, and stand still with the whole process, which renews nothing then, until the file `tellBy` says `succeed`, `fail` or `hand back`, and do so in the same moment; `put off and block until told`: the same, after the job was moved to the delayed ones; `hold until told`: wait for the file likewise, but alive.
   * `block`: in the first `times` attempts, do nothing else, not even listen, for `workMs`; `refuse`: in the first `times` attempts, ask for another one after `workMs`; both then return.
   * `die after put`: there is no handler; the process kills itself with SIGKILL when
   * its dispatcher has put jobs on their queue.
   */
  readonly act:
    | 'charge'
    | 'die'
    | 'die before the claim'
    | 'write'
    | 'write and hold'
    | 'work'
    | 'work until told'
    | 'bury and hold'
    | 'die after put'
    | 'write fenced'
    | 'two steps'
    | 'block until told'
    | 'put off and block until told'
    | 'hold until told'
    | 'block'
    | 'refuse';
  /** Where the process kills itself with SIGKILL, in a handler that charges or writes, between the outcome's record and BullMQ, in `reconcile()`, or between two steps. */
  readonly dieAt?:
    'before the effect' | 'after the answer' | 'after the record' | 'while it asks' | 'after the first step';
  /** Goes through the ledger's outcome as part of the result, so that a proxy can find it. */
  readonly mark?: string;
  /** Of the simulator. */
  readonly gateway?: string;
  readonly run?: string;
  readonly workMs?: number;
  /** A file that is not there yet. */
  readonly tellBy?: string;
  /** Whether it takes no job until it is told to. */
  readonly looksOn?: boolean;
  /** The key of an operation whose handler kills the process with SIGKILL. */
  readonly poison?: string;
  /** The most operations of a bundle, where the process puts bundles; `never` also where all tests have bundles. */
  readonly bundle?: number | 'never';
  /** Default 1. */
  readonly concurrency?: number;
  /** Default 1. */
  readonly times?: number;
  /** How long an attempt may take, in ms. Default 60,000. */
  readonly timeoutMs?: number;
  /** How often BullMQ may find its job stalled. Default: the library's. */
  readonly maxStalledCount?: number;
  /** By how much the clock of the process is ahead, in ms. Default 0. */
  readonly clockAheadMs?: number;
  /** How long handlers may go on after SIGTERM. Default: the library's. */
  readonly drainMs?: number;
}

/** Callers of one guarded call, which is a row of `effects`; it is called when the process is told so. */
export interface CallerScript {
  readonly role: 'caller';
  readonly place: Place;
  readonly key: string;
  readonly callers: number;
  readonly options: CallOptions;
  /** How long the call takes; -1: for ever. */
  readonly workMs: number;
  readonly leaseMs: number;
}

/** Enqueues all in one transaction, each payload made when it is asked for, and ends. */
export interface ProducerScript {
  readonly role: 'producer';
  readonly place: Place;
  readonly operations: number;
  readonly payloadLength: number;
}

/** Redrives all letters of the queue, slowly enough to be killed in the middle. */
export interface RedriverScript {
  readonly role: 'redriver';
  readonly place: Place;
}

/** Longer than any test: for attempts that nobody is to take over because their process was slow. */
export const LONG_LEASE_MS = 120_000;

/** What `work` leaves behind. */
export const CREATE_WORK = 'CREATE TABLE work (operation_key text, attempt integer, pid integer, event text)';
