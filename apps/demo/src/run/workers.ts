import { Child } from '../servers/child.js';
import type { UndoList } from '../servers/undo-list.js';

/** The worker processes of a variant. */
export class Workers {
  private readonly children = new Map<string, Child>();

  constructor(
    private readonly program: string,
    private readonly env: NodeJS.ProcessEnv,
    private readonly undo: UndoList,
  ) {}

  async start(name: string): Promise<Child> {
    const child = await Child.start(name, this.program, { ...this.env, ROLE: 'worker' }, this.undo);
    this.children.set(name, child);
    return child;
  }

  /** SIGKILL. @throws Error if there is none of that name, or it is gone already */
  async kill(name: string): Promise<Child> {
    const child = this.children.get(name);
    if (child === undefined || !child.isRunning) throw new Error(`There is no worker "${name}" to be killed`);
    this.children.delete(name);
    await child.kill();
    return child;
  }

  /** @throws Error with its stderr if a worker has ended by itself */
  assertRunning(): void {
    for (const { name, isRunning, stderr } of this.children.values())
      if (!isRunning) throw new Error(`${name} has ended by itself. Its stderr:\n${stderr}`);
  }
}
