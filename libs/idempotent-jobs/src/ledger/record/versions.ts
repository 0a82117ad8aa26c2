import { createRequire } from 'node:module';

const { version } = createRequire(import.meta.url)('../../../package.json') as { version: string };

/** What ran when an operation was given up, as JSON text: part of a dead letter's evidence. */
export const VERSIONS = JSON.stringify({ library: version, node: process.versions.node });
