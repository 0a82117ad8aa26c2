import { Client } from 'pg';
import { afterEach } from 'vitest';
import type { Place } from './place.js';

/** A session beside the application's, as a colleague with psql or a backup has one. */
export interface Sessions {
  open(place: Pick<Place, 'databaseUrl'>): Promise<Client>;
}

/** Sessions that a test opens; all are ended when it ends. */
export function useSessions(): Sessions {
  const open = new Set<Client>();
  afterEach(async () => {
    await Promise.all([...open].map((client) => client.end().catch(() => undefined)));
    open.clear();
  });
  return {
    async open({ databaseUrl }) {
      const client = new Client({ connectionString: databaseUrl });
      client.on('error', () => undefined);
      await client.connect();
      open.add(client);
      return client;
    },
  };
}
