/** Where BullMQ keeps its queues. */
export type Backend = 'redis' | 'postgres';

/** A database and a queue namespace that nothing else uses. Plain data, so that it can be handed to a child process. */
export interface Place {
  readonly backend: Backend;
  readonly databaseUrl: string;
  readonly connection: object;
  readonly prefix: string;
}
