import { defineConfig } from 'vitest/config';

/** Nest injects by the types that are emitted with decorators. */
export default defineConfig({ oxc: { decorator: { legacy: true, emitDecoratorMetadata: true } } });
