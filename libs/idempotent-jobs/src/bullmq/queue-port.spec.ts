import { EventEmitter } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import type { Queue } from 'bullmq';
import { describe, expect, it } from 'vitest';
import { QueuePort } from './queue-port.js';

const JOB = { name: 'charge', jobId: 'op-1', data: {}, delayMs: 0, priority: undefined };

/** A queue whose client of Redis says that it is in that state. */
function queueWith(status: string) {
  const client = Object.assign(new EventEmitter(), { status, isCluster: true });
  const sent: unknown[] = [];
  const bullmq = {
    name: 'charges',
    getBackend: () => ({ client: Promise.resolve(client) }),
    addBulk: async (jobs: unknown[]) => sent.push(...jobs),
  };
  return { client, sent, port: new QueuePort(bullmq as unknown as Queue) };
}

describe('putting jobs on a queue', () => {
  it('waits for a client of a Redis Cluster that is connected and not ready, which would keep them back', async () => {
    const { client, sent, port } = queueWith('connect');
    const put = port.put([JOB]);
    await turn();
    expect(sent).toEqual([]);
    client.status = 'ready';
    client.emit('ready');
    await put;
    expect(sent).toHaveLength(1);
  });

  it('sends at once where it is ready', async () => {
    const { sent, port } = queueWith('ready');
    await port.put([JOB]);
    expect(sent).toHaveLength(1);
  });
});
