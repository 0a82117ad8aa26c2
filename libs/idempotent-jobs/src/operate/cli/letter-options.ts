import type { DeadLetterFilter, DeadLetterRef } from '../../dead-letters/dead-letter.js';
import { DEAD_LETTER_REASONS, type DeadLetterReason } from '../../operation/reasons.js';
import type { LedgerAction } from '../../operation/ledger-action.js';
import type { CommandOption } from './command.js';
import type { Values } from './values.js';
import { WrongUsage } from './wrong-usage.js';

/** Which letters are meant. */
export const FILTER_OPTIONS: Readonly<Record<string, CommandOption>> = {
  queue: { value: '<name>', help: 'of this source queue' },
  tenant: { value: '<id>', help: 'of this tenant' },
  key: { value: '<key>', help: 'of this operation key' },
  reason: { value: '<reason>', help: `one of ${DEAD_LETTER_REASONS.join(', ')}` },
  fingerprint: { value: '<print>', help: 'of this cause, as "letters --groups" shows it' },
  from: { value: '<time>', help: 'written at or after this time (ISO 8601)' },
  until: { value: '<time>', help: 'written before this time (ISO 8601)' },
};

/** Options that name one operation in place of a letter's id. */
export const OPERATION_OPTIONS: Readonly<Record<string, CommandOption>> = {
  tenant: { value: '<id>', help: 'with --key: the operation whose open letter is meant' },
  key: { value: '<key>', help: 'see --tenant' },
  step: { value: '<name>', help: 'with --key: the step of that operation' },
};

export function filterOf(values: Values): DeadLetterFilter {
  const reason = values.text('reason');
  if (reason !== undefined && !isReason(reason))
    throw new WrongUsage(`--reason must be one of ${DEAD_LETTER_REASONS.join(', ')}, but is "${reason}".`);
  const filter = {
    queue: values.text('queue'),
    tenantId: values.text('tenant'),
    operationKey: values.text('key'),
    reason,
    fingerprint: values.text('fingerprint'),
    from: values.date('from'),
    until: values.date('until'),
  };
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined));
}

/** The letter that is meant: by its id, or by tenant and key. */
export function letterOf(values: Values): DeadLetterRef {
  const tenantId = values.text('tenant');
  const operationKey = values.text('key');
  const step = values.text('step');
  if (values.operand !== undefined) {
    if (tenantId !== undefined || operationKey !== undefined || step !== undefined)
      throw new WrongUsage('Name the letter by its id, or by --tenant and --key, not by both.');
    return values.operand;
  }
  if (tenantId === undefined || operationKey === undefined)
    throw new WrongUsage('Name a letter: by its id, as "letters" shows it, or by --tenant and --key.');
  return { tenantId, operationKey, ...(step !== undefined && { step }) };
}

/** Who does it, and why. */
export function actionOf(values: Values): LedgerAction {
  return {
    actor: values.required('actor'),
    note: values.required('note'),
    dryRun: values.flag('dry-run'),
  };
}

function isReason(text: string): text is DeadLetterReason {
  return (DEAD_LETTER_REASONS as readonly string[]).includes(text);
}
