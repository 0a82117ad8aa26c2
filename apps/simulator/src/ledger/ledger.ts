/**
 * The judge's book: every arrival at the outside world, on disk before it is answered. It promises that an effect which
 * anybody could have heard of is in it, whatever happens to this process.
 */
import type { Arrival, LedgerEntry } from './ledger-entry.js';
import { LedgerFile } from './ledger-file.js';

/** The line that says: what came before of this run no longer counts. */
interface ResetLine {
  readonly reset: string;
}

export class Ledger {
  private readonly runs = new Map<string, LedgerEntry[]>();
  private lastNumber = 0;
  private file!: LedgerFile;

  private constructor() {}

  /** Opens the ledger with the entries that the file already holds. */
  static async open(path: string): Promise<Ledger> {
    const ledger = new Ledger();
    ledger.file = await LedgerFile.open(path, (line) => ledger.remember(line as LedgerEntry | ResetLine));
    return ledger;
  }

  /** Numbers the arrival and records it; resolves when it is on disk. */
  async append(arrival: Arrival): Promise<LedgerEntry> {
    const entry = { number: this.lastNumber + 1, ...arrival, at: new Date().toISOString() };
    this.remember(entry);
    await this.file.append(entry);
    return entry;
  }

  /** The entries of a run, or of all of them, in the order of their numbers. */
  entries(run?: string): readonly LedgerEntry[] {
    if (run !== undefined) return this.runs.get(run) ?? [];
    return [...this.runs.values()].flat().sort((one, other) => one.number - other.number);
  }

  /** Forgets a run. The file keeps its lines, and says that they no longer count. */
  async reset(run: string): Promise<void> {
    const line: ResetLine = { reset: run };
    this.remember(line);
    await this.file.append(line);
  }

  /** Waits for what is being written. */
  async close(): Promise<void> {
    await this.file.close();
  }

  private remember(line: LedgerEntry | ResetLine): void {
    if ('reset' in line) {
      this.runs.delete(line.reset);
      return;
    }
    this.lastNumber = Math.max(this.lastNumber, line.number);
    const entries = this.runs.get(line.run);
    if (entries) entries.push(line);
    else this.runs.set(line.run, [line]);
  }
}
