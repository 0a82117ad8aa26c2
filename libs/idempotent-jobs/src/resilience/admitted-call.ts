import type { Permit } from './circuit-state.js';

/** How an admitted call ended; `nothing` when it says nothing about the dependency. @internal */
export type CallResult = 'success' | 'failure' | 'nothing';

/** Called when a call ends, with the phase that admitted it. @internal */
export type OnEnd = (permit: Permit, admittedIn: object, result: CallResult) => void;

/**
 * An admission that is its own permit, so that a call through a closed circuit, the most common case, makes one object.
 * @internal
 */
export class AdmittedCall implements Permit {
  readonly kind = 'admitted';
  #isOver = false;

  constructor(
    private readonly admittedIn: object,
    private readonly onEnd: OnEnd,
  ) {}

  get permit(): Permit {
    return this;
  }

  succeed(): void {
    this.#end('success');
  }

  fail(): void {
    this.#end('failure');
  }

  ignore(): void {
    this.#end('nothing');
  }

  #end(result: CallResult): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.onEnd(this, this.admittedIn, result);
  }
}
