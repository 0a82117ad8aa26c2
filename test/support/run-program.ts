import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants, Script } from 'node:vm';

/*
 * Runs the program of the tests (`program.ts`) from its bundle, with what V8 compiled of it the last time: a process is
 * there in half of the time, and there are hundreds of them. The first one (`bundle-program.ts`) leaves that behind when it
 * ends.
 */

// Without one, as in Node 20, pg loads all of fetch() to find out whether this is Cloudflare.
if (!('navigator' in globalThis)) Object.assign(globalThis, { navigator: { userAgent: 'Node.js' } });

const bundle = process.env['BUNDLE'] as string;
const compiled = `${bundle}.compiled`;
const isFirst = !existsSync(compiled);

const script = new Script(
  `(function (exports, require, module, __filename, __dirname) {${readFileSync(bundle, 'latin1')}\n})`,
  {
    filename: bundle,
    ...(!isFirst && { cachedData: readFileSync(compiled) }),
    importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  },
);
if (isFirst) process.on('exit', () => writeFileSync(compiled, script.createCachedData()));
const module = { exports: {} };
script.runInThisContext()(module.exports, createRequire(bundle), module, bundle, import.meta.dirname);
