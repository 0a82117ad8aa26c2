/**
 * An append-only file of JSON lines that is on disk before anybody is told. Lines that arrive while a write is under way
 * share the next one, so that the disk's speed limits the batches and not the arrivals.
 */
import { readFileSync } from 'node:fs';
import { open, truncate, type FileHandle } from 'node:fs/promises';

export class LedgerFile {
  private waiting: string[] = [];
  private flushing: Promise<void> | undefined;

  private constructor(private readonly handle: FileHandle) {}

  /**
   * Opens the file, creating it when it is missing, and hands over the lines that it holds. A last line without its end is
   * what a crash in the middle of a write leaves: nobody was told about it, so it is cut off.
   *
   * @throws Error when a line other than that cannot be read: the file is damaged, and no judge
   */
  static async open(path: string, onLine: (line: unknown) => void): Promise<LedgerFile> {
    const handle = await open(path, 'a');
    const text = readFileSync(path, 'utf8');
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (whole.length < text.length) await truncate(path, Buffer.byteLength(whole));
    for (const [index, line] of whole.split('\n').slice(0, -1).entries()) {
      try {
        onLine(JSON.parse(line));
      } catch (cause) {
        throw new Error(`Line ${index + 1} of the ledger ${path} is damaged: move the file away`, { cause });
      }
    }
    return new LedgerFile(handle);
  }

  /** Resolves when the line is on disk. */
  async append(line: unknown): Promise<void> {
    this.waiting.push(JSON.stringify(line) + '\n');
    // The batch under way was cut before this line came: it is the one after it that has to be waited for.
    const current = this.flushing;
    if (current) await current.catch(() => undefined);
    this.flushing ??= this.flush().finally(() => (this.flushing = undefined));
    await this.flushing;
  }

  async close(): Promise<void> {
    await this.flushing?.catch(() => undefined);
    await this.handle.close();
  }

  private async flush(): Promise<void> {
    const batch = this.waiting.join('');
    this.waiting = [];
    await this.handle.appendFile(batch);
    await this.handle.datasync();
  }
}
