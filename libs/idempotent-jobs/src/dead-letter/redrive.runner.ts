import { setTimeout as setTimeoutPromise } from 'node:timers/promises';
import { nextStep } from './redrive.js';
import type { OnClosed } from './dead-letter.service.js';
import type { HeldRedrive, RedriveStore } from './redrive.store.js';

/** What the runner needs of the application it belongs to. */
export interface RedriveRunnerServices {
  readonly store: RedriveStore;
  /** Names this process among all that might carry on a redrive. */
  readonly runnerId: string;
  readonly onClosed: OnClosed;
  /** Operations have been brought back and are due for their queues. */
  readonly onRedriven: (queue: string) => Promise<void>;
  readonly onError: (message: string, error: unknown) => void;
  /** How often to look for a redrive to carry on, in ms. */
  readonly pollMs: number;
}

/**
 * Carries on redrives of many: the canaries first, then the rest, no faster than their rate, until their letters end or
 * too many fail again. All that it knows is in the ledger: killed anywhere, another process finds the lease over and goes
 * on with the letters that are still open. Cancelled, it brings nothing more back.
 */
export class RedriveRunner {
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #stopping = new AbortController();
  #taken = 0;
  readonly #carried = new Set<Promise<void>>();

  constructor(private readonly services: RedriveRunnerServices) {
    this.#stopping.abort();
  }

  start(): void {
    this.#stopping = new AbortController();
    this.wake();
  }

  /** There may be a redrive to carry on. */
  wake(): void {
    if (this.#isStopped) return;
    clearTimeout(this.#timer);
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
      if (this.#isStopped) return;
      this.#timer = setTimeout(() => this.wake(), this.services.pollMs);
      this.#timer.unref();
    });
  }

  /** Finishes the steps under way, and leaves the rest to other processes. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await this.#looking;
    await Promise.all(this.#carried);
  }

  get #isStopped(): boolean {
    return this.#stopping.signal.aborted;
  }

  /** Redrives of several queues go on side by side. */
  async #look(): Promise<void> {
    try {
      while (!this.#isStopped) {
        this.#taken += 1;
        const redrive = await this.services.store.take(`${this.services.runnerId}/${this.#taken}`, LEASE_MS);
        if (redrive === undefined) return;
        const carried: Promise<void> = this.#carryOn(redrive)
          .catch((error: unknown) => this.#tellOf(error))
          .finally(() => this.#carried.delete(carried));
        this.#carried.add(carried);
      }
    } catch (error) {
      this.#tellOf(error);
    }
  }

  #tellOf(error: unknown): void {
    this.services.onError('A redrive was interrupted; it goes on by itself', error);
  }

  async #carryOn(redrive: HeldRedrive): Promise<void> {
    const { store } = this.services;
    let allowance = 1;
    let lastAt = performance.now();
    while (!this.#isStopped && (await store.keep(redrive, LEASE_MS))) {
      const lookedAt = performance.now();
      const state = await store.get(redrive.id);
      if (state === undefined) return;
      const tookMs = performance.now() - lookedAt;

      const step = nextStep(state.progress, redrive.pace, allowance);
      if (step.kind === 'complete' || step.kind === 'stop') {
        const status = step.kind === 'stop' ? 'stopped' : 'completed';
        await store.end(redrive.id, status, step.kind === 'stop' ? step.because : undefined, redrive);
        return;
      }
      if (step.kind === 'redrive') {
        await this.#bringBack(redrive, state.actor, state.note, step.letters);
        allowance -= step.letters;
      }
      // Counting a large redrive takes a while: it must not take more than a tenth of the database's time.
      await this.#pause(Math.max(STEP_MS, tookMs * 9));
      const now = performance.now();
      // What waiting saved up is not spent at once.
      allowance = Math.min(
        allowance + ((now - lastAt) / 1000) * redrive.pace.ratePerSecond,
        Math.max(1, redrive.pace.ratePerSecond),
      );
      lastAt = now;
    }
    await store.leave(redrive);
  }

  async #bringBack(redrive: HeldRedrive, actor: string, note: string, letters: number): Promise<void> {
    const next = await this.services.store.nextLetters(redrive.id, letters);
    if (next.length === 0) return;
    const author = { actor, note };
    const verdicts = await this.services.store.bringBack(next, 'redrive', author, undefined, redrive);
    for (const letter of next) {
      const verdict = verdicts.get(letter.id);
      if (verdict === 'allowed') this.services.onClosed(letter, 'redriven', actor);
      if (verdict === 'completed') this.services.onClosed(letter, 'completed', actor);
    }
    await this.services.onRedriven(redrive.queue);
  }

  async #pause(ms: number): Promise<void> {
    await setTimeoutPromise(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }
}

/** How long a redrive rests whose process has died. */
const LEASE_MS = 15_000;
const STEP_MS = 250;
