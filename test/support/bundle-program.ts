import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type Plugin, rolldown } from 'rolldown';
import type { Script } from './script.js';

/** Runs a bundle of the program. */
export const RUN_PROGRAM = built('run-program.js');

/** The bundle of the program that tests start beside themselves. */
export interface ProgramBundle {
  readonly file: string;
  /** Runs it once until it is ready, so that V8's work is kept for those that come. */
  compile(script: Script): Promise<void>;
  remove(): Promise<void>;
}

/**
 * Puts the built program (`program.ts`) and all that it loads in one file: to find and to read the files of its packages
 * one by one takes longer than all that most of the processes do. See `run-program.ts`.
 */
export async function bundleProgram(): Promise<ProgramBundle> {
  const bundle = await rolldown({
    input: built('program.js'),
    platform: 'node',
    // Nest loads them if they are there.
    external: [/^@nestjs\/(microservices|websockets|platform-)/],
    logLevel: 'silent',
    plugins: [OWN_PATH, ONE_TYPEORM, ONE_PG],
  });
  const file = built(`program-${process.pid}.cjs`);
  // No name is shortened: classes and errors are known by theirs.
  const minify = { compress: false, mangle: false, codegen: { removeWhitespace: true } };
  await bundle.write({ file, format: 'cjs', codeSplitting: false, minify });
  await writeFile(file, inAscii(await readFile(file, 'utf8')));
  return {
    file,
    async compile(script) {
      const first = fork(RUN_PROGRAM, {
        env: { ...process.env, BUNDLE: file, SCRIPT: JSON.stringify(script) },
      });
      const ended = once(first, 'exit');
      await Promise.race([once(first, 'message'), ended]);
      if (first.connected) first.disconnect();
      await ended;
    },
    async remove() {
      await rm(file);
      await rm(`${file}.compiled`, { force: true });
    },
  };
}

function built(name: string): string {
  return fileURLToPath(new URL(`../dist/support/${name}`, import.meta.url));
}

/** Each module still sees the path that it has on disk. */
const OWN_PATH: Plugin = {
  name: 'own-path',
  transform: (code, id) =>
    code.includes('import.meta.url')
      ? code.replaceAll('import.meta.url', JSON.stringify(pathToFileURL(id).href))
      : null,
};

/** @nestjs/typeorm asks for TypeORM at run time; that would be a second one, read from its thousand files. */
const ONE_TYPEORM: Plugin = {
  name: 'one-typeorm',
  transform: (code, id) =>
    id.endsWith('typeorm-compat.js')
      ? `import * as bundled from 'typeorm';\n${code.replace(/createRequire\([^)]*\)/, '() => bundled')}`
      : null,
};

/** TypeORM asks for pg at run time, likewise. */
const ONE_PG: Plugin = {
  name: 'one-pg',
  transform: (code, id) =>
    id.endsWith('PlatformTools.js')
      ? code.replace('return require(name);', "if (name === 'pg') return require('pg');\n$&")
      : null,
};

/** V8 reads a text of one byte a character in half of the time. */
function inAscii(code: string): string {
  return code.replaceAll(
    /[^\0-\x7f]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
