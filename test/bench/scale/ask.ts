import type { BenchOptions } from '../options.js';
import type { Servers } from '../servers.js';
import { backlog } from './backlog.js';
import { largeLedger } from './large-ledger.js';
import { memory } from './memory.js';
import { partitions } from './partitions.js';
import { pooler } from './pooler.js';
import { processes } from './processes.js';
import { pruning } from './pruning.js';
import type { Figure, Question } from './question.js';

/** What a question was answered with. */
export interface Answer {
  readonly name: string;
  readonly asks: string;
  readonly size: number;
  readonly seconds: number;
  readonly figures: readonly Figure[];
}

const QUESTIONS: readonly Question[] = [largeLedger, pruning, processes, memory, backlog, pooler, partitions];

/** Asks the questions that were named, or all, one after the other, and prints each answer as soon as it is there. */
export async function askAll(
  servers: Servers,
  { only, full, size: given }: BenchOptions,
): Promise<readonly Answer[]> {
  const answers: Answer[] = [];
  for (const question of QUESTIONS.filter(({ name }) => only === undefined || only.includes(name))) {
    const { name, asks, sizes } = question;
    const size = given ?? (full ? sizes.full : sizes.usual);
    console.error(`\n${name}: ${asks} (${size.toLocaleString('en')})`);
    const startedAt = performance.now();
    const figures = await question.answer(servers, size);
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    for (const figure of figures) console.error(lineOf(figure));
    answers.push({ name, asks, size, seconds, figures });
  }
  return answers;
}

function lineOf({ what, value, unit, ratio, of }: Figure): string {
  const comparison = ratio === undefined ? '' : `  × ${ratio} of ${of}`;
  return `  ${what.padEnd(62)} ${value.toLocaleString('en').padStart(10)} ${unit.padEnd(12)}${comparison}`;
}
