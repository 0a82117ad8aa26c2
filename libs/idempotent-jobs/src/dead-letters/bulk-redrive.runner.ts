import { setTimeout as setTimeoutPromise } from 'node:timers/promises';
import { Injectable } from '@nestjs/common';
import { JobEvents } from '../events/job-events.js';
import { LibraryLog } from '../events/library-log.js';
import { runIds } from '../operation/identity.js';
import { Due } from '../producer/due.js';
import { outsideOfAnyFrame } from '../tenancy/frames.js';
import { ActionStore } from './action.store.js';
import { nextStep, type Redrive, type RedriveProgress } from './bulk-redrive.js';
import { type ReservedRedrive, BulkRedriveStore } from './bulk-redrive.store.js';
import { letterClosed } from './lock.js';
import { isDone } from './write.js';

/**
 * Runs bulk redrives: the canaries first, then the rest, no faster than their rate, until all letters are done or too
 * many fail again. All state is in the ledger: when the process is killed, another one finds the lease expired and goes
 * on with the letters that are still open. A cancelled redrive brings nothing more back.
 */
@Injectable()
export class BulkRedriveRunner {
  #timer: NodeJS.Timeout | undefined;
  #polling: Promise<void> | undefined;
  #stopping = new AbortController();
  /** Identifies this process among all that may run a redrive. */
  readonly #runnerId = runIds()();
  #taken = 0;
  readonly #carried = new Set<Promise<void>>();

  constructor(
    private readonly store: BulkRedriveStore,
    private readonly actions: ActionStore,
    private readonly events: JobEvents,
    private readonly due: Due,
    private readonly log: LibraryLog,
  ) {
    this.#stopping.abort();
  }

  start(): void {
    this.#stopping = new AbortController();
    this.wake();
  }

  /** Looks for a redrive to run at once. */
  wake(): void {
    if (this.#isStopped) return;
    clearTimeout(this.#timer);
    // The redrive runs outside of the caller's frame: it does not belong to the caller.
    this.#polling ??= outsideOfAnyFrame(() => this.#lookAndRest());
  }

  async #lookAndRest(): Promise<void> {
    await this.#poll();
    this.#polling = undefined;
    if (this.#isStopped) return;
    this.#timer = setTimeout(() => this.wake(), POLL_MS);
    this.#timer.unref();
  }

  /** Finishes the steps under way, and leaves the rest to other processes. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#polling;
    await Promise.all(this.#carried);
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** Takes every redrive that is free: redrives of several queues run side by side. */
  async #poll(): Promise<void> {
    try {
      while (!this.#isStopped) {
        this.#taken += 1;
        const redrive = await this.store.take(`${this.#runnerId}/${this.#taken}`, LEASE_MS);
        if (redrive === undefined) return;
        const carried: Promise<void> = this.#reserve(redrive)
          .catch((error: unknown) => this.#tellOf(error))
          .finally(() => this.#carried.delete(carried));
        this.#carried.add(carried);
      }
    } catch (error) {
      this.#tellOf(error);
    }
  }

  #tellOf(error: unknown): void {
    this.log.trouble('A redrive was interrupted; it goes on by itself', error);
  }

  /**
   * Runs a redrive, and renews its lease beside the work: counting a large redrive may take longer than a lease lasts.
   */
  async #reserve(redrive: ReservedRedrive): Promise<void> {
    const renewal = setInterval(() => {
      this.store.keep(redrive, LEASE_MS).catch((error: unknown) => this.#tellOf(error));
    }, LEASE_MS / 3);
    try {
      await this.#carryOn(redrive);
    } finally {
      clearInterval(renewal);
    }
  }

  async #carryOn(redrive: ReservedRedrive): Promise<void> {
    const { store } = this;
    let seen: Redrive | undefined;
    let lookAgainAt = 0;
    let allowance = 1;
    let lastAt = performance.now();
    while (!this.#isStopped && (await store.keep(redrive, LEASE_MS))) {
      // Counting a large redrive is slow: it must not take more than a tenth of the database's time.
      if (seen === undefined || performance.now() >= lookAgainAt) {
        const askedAt = performance.now();
        seen = await store.get(redrive.id);
        if (seen === undefined) return;
        lookAgainAt = performance.now() + 9 * (performance.now() - askedAt);
      }
      const step = nextStep(seen.progress, redrive.pace, allowance);
      if (step.kind === 'complete' || step.kind === 'stop') {
        const status = step.kind === 'stop' ? 'stopped' : 'completed';
        await store.end(redrive.id, status, step.kind === 'stop' ? step.because : undefined, redrive);
        return;
      }
      if (step.kind === 'redrive') {
        const redriven = await this.#bringBack(redrive, seen, step.letters);
        seen = { ...seen, progress: after(seen.progress, step.letters, redriven) };
        allowance -= step.letters;
      }
      await this.#pause(STEP_MS);
      const now = performance.now();
      // The unused allowance of a long wait must not be spent at once.
      allowance = Math.min(
        allowance + ((now - lastAt) / 1000) * redrive.pace.ratePerSecond,
        Math.max(1, redrive.pace.ratePerSecond),
      );
      lastAt = now;
    }
    await store.leave(redrive);
  }

  /** Returns how many operations were brought back. */
  async #bringBack(redrive: ReservedRedrive, { actor, note }: Redrive, letters: number): Promise<number> {
    const next = await this.store.nextLetters(redrive.id, letters);
    if (next.length === 0) return 0;
    const judged = await this.actions.act(next, { kind: 'redrive' }, { actor, note }, redrive);
    const done = judged.filter(isDone);
    for (const { letter, judgement } of done) this.events.emit(letterClosed(letter, judgement.as, actor));
    await this.due.announce(redrive.queue);
    return done.filter(({ judgement }) => judgement.kind === 'run_again').length;
  }

  async #pause(ms: number): Promise<void> {
    await setTimeoutPromise(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }
}

/** The progress after a step, estimated without counting. */
function after(progress: RedriveProgress, letters: number, redriven: number): RedriveProgress {
  return {
    ...progress,
    // Never 0 in an estimate: only counting decides that a redrive is complete.
    left: Math.max(1, progress.left - letters),
    redriven: progress.redriven + redriven,
    underWay: progress.underWay + redriven,
  };
}

/** The process that began a redrive carries it on without polling. Polling only finds redrives whose process has died. */
const POLL_MS = 2_000;
/** How long a redrive rests after its process has died. */
const LEASE_MS = 15_000;
const STEP_MS = 250;
