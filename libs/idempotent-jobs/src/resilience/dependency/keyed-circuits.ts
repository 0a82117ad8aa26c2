/** What is kept for a key until it is forgotten. */
interface Forgettable {
  /** Whether forgetting it loses next to nothing: its circuit is closed, and none of its calls is under way. */
  readonly isIdle: boolean;
}

/**
 * What is known of each key, for a limited number of keys. When a new key exceeds it, the key that was unused for longest
 * is forgotten: among the idle ones, or among all if none is idle.
 */
export class KeyedCircuits<Circuit extends Forgettable> {
  /** In the order of their last use. */
  readonly #known = new Map<string, Circuit>();

  constructor(
    private readonly maxKeys: number,
    private readonly make: () => Circuit,
  ) {}

  of(key: string): Circuit {
    const circuit = this.#known.get(key) ?? this.#made();
    this.#known.delete(key);
    this.#known.set(key, circuit);
    return circuit;
  }

  get all(): Iterable<Circuit> {
    return this.#known.values();
  }

  #made(): Circuit {
    if (this.#known.size >= this.maxKeys) this.#known.delete(this.#leastNeeded());
    return this.make();
  }

  #leastNeeded(): string {
    for (const [key, { isIdle }] of this.#known) if (isIdle) return key;
    const [oldest] = this.#known.keys();
    return oldest as string;
  }
}
