import type { INestApplicationContext } from '@nestjs/common';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { makePlace } from './scenario.js';
import { type Backend, type Place } from './place.js';
import { type AppOptions, startApp } from './start-app.js';

/** Applications that a test starts; all are closed when it ends, however it ends. */
export interface TestApps {
  /** A fresh place and an application in it. */
  fresh(backend: Backend, options: AppOptions): Promise<{ app: INestApplicationContext; place: Place }>;
  /** Another application in the same place. */
  beside(place: Place, options: AppOptions): Promise<INestApplicationContext>;
  close(app: INestApplicationContext): Promise<void>;
}

export function useApps(): TestApps {
  const open = new Set<INestApplicationContext>();
  const beside = async (place: Place, options: AppOptions): Promise<INestApplicationContext> => {
    const app = await startApp(place, options);
    open.add(app);
    return app;
  };
  const close = async (app: INestApplicationContext): Promise<void> => {
    open.delete(app);
    await app.close();
  };
  afterEach(async () => {
    await Promise.all([...open].map(close));
  });
  return {
    beside,
    close,
    async fresh(backend, options) {
      const place = await makePlace(backend);
      return { app: await beside(place, options), place };
    },
  };
}

/**
 * One application for all tests of a suite, each of which has operation keys of its own: in a fresh place of that backend,
 * or in one that is made for it.
 */
export function useOneApp(
  where: Backend | (() => Promise<Place>),
  options: AppOptions,
): () => INestApplicationContext {
  let app: INestApplicationContext | undefined;
  beforeAll(async () => {
    app = await startApp(await (typeof where === 'string' ? makePlace(where) : where()), options);
  });
  afterAll(() => app?.close());
  return () => app as INestApplicationContext;
}
