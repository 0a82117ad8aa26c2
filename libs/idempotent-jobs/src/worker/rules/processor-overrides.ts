import type { WorkerOptions } from 'bullmq';
import { ConfigurationError } from '../../operation/errors.js';
import { type OptionChecks, optionChecks } from '../../option-checks/option-checks.js';
import type { IdempotentProcessorOptions } from './processor.options.js';

/** The names of the options that a configuration may give: numbers and names, nothing that is code. */
const OVERRIDABLE = [
  'timeoutMs',
  'timeBudgetMs',
  'retry',
  'retryByJob',
  'leaseMs',
  'keyRetentionMs',
  'reconcile',
  'clientRetries',
  'concurrency',
] as const;

/** Options of a processor that a configuration may give. */
export type ProcessorOverrides = Pick<
  IdempotentProcessorOptions & Pick<WorkerOptions, 'concurrency'>,
  (typeof OVERRIDABLE)[number]
>;

/** Checks the names of the options and queues. The values are checked with the options of their processors. */
export function readOverrides(
  checks: OptionChecks,
  processors: Readonly<Record<string, ProcessorOverrides>> = {},
): ReadonlyMap<string, ProcessorOverrides> {
  if (processors === null || typeof processors !== 'object') {
    checks.fail('processors', processors, 'an object of options by queue');
    return new Map();
  }
  for (const [queue, options] of Object.entries(processors)) {
    if (options === null || typeof options !== 'object') {
      checks.fail(`processors.${queue}`, options, 'an object of options');
      continue;
    }
    const unknown = Object.keys(options).filter((option) => !OVERRIDABLE.some((known) => known === option));
    if (unknown.length > 0)
      checks.problem(
        `processors.${queue} has ${unknown.join(', ')}, but a configuration can give ${OVERRIDABLE.join(', ')}; all else belongs in @IdempotentProcessor()`,
      );
  }
  return new Map(Object.entries(processors));
}

/**
 * The options of the decorator, with those of the configuration in place of them.
 *
 * @throws ConfigurationError if the concurrency is not a whole number greater than 0
 */
export function overridden(
  queue: string,
  options: IdempotentProcessorOptions,
  overrides: ProcessorOverrides = {},
): { readonly options: IdempotentProcessorOptions; readonly concurrency: number | undefined } {
  const { concurrency, ...own } = overrides;
  const checks = optionChecks(`forRoot({ processors }), queue "${queue}"`);
  if (concurrency !== undefined) checks.count('concurrency', concurrency, 1);
  checks.throwIfAny((message) => new ConfigurationError(message));
  // A configuration may give undefined for what it leaves out.
  const given = Object.entries(own).filter(([, value]) => value !== undefined);
  return { options: { ...options, ...Object.fromEntries(given) }, concurrency };
}
