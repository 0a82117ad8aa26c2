import { hash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { ErrorEvidence } from '../../operation/thrown.js';
import { createRequire } from 'node:module';

/**
 * Equal for dead letters with one cause, so that a thousand letters read as three problems. A digest of the reason, of the
 * error's class, code and status, and of the place in the application that threw it, without the line number, which
 * changes with every edit. An error that no code of the application threw is identified by its message, without the parts
 * that differ between operations.
 */
export function errorFingerprint(reason: string, error: ErrorEvidence): string {
  const place = firstOwnFrame(error) ?? withoutIds(error.message);
  const words = [reason, error.name, error.code ?? '', error.status ?? '', place];
  return hash('sha256', JSON.stringify(words), 'hex').slice(0, 16);
}

/** The library's own frames say nothing about the application. */
const LIBRARY = fileURLToPath(new URL('../../', import.meta.url));

/** `ChargeProcessor.process charges/charge.processor.js`: function and end of its path, equal on each machine. */
function firstOwnFrame(error: ErrorEvidence): string | undefined {
  for (let seen: ErrorEvidence | undefined = error; seen !== undefined; seen = seen.cause) {
    for (const line of seen.stack?.split('\n') ?? []) {
      const frame = FRAME.exec(line);
      if (frame === null) continue;
      const [, functionName = '', path = ''] = frame;
      if (path.startsWith('node:') || path.includes('node_modules') || path.includes(LIBRARY)) continue;
      return `${functionName.replace(/^async /, '')} ${path.split(/[/\\]/).slice(-2).join('/')}`;
    }
  }
  return undefined;
}

const FRAME = /^\s+at (?:(.+?) \()?((?:file:|node:|\/|[A-Za-z]:\\)[^()]*?):\d+:\d+\)?$/;

function withoutIds(message: string): string {
  return message
    .replace(/"[^"]*"|'[^']*'/g, '"?"')
    .replace(/\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b/gi, '?')
    .replace(/\d+/g, '0')
    .slice(0, 500);
}

const { version } = createRequire(import.meta.url)('../../../package.json') as { version: string };

/** What ran when an operation was given up, as JSON text: part of a dead letter's evidence. */
export const VERSIONS = JSON.stringify({ library: version, node: process.versions.node });
