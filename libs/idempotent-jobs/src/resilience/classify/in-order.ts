import type { Classify } from './classify.js';
import { FAILURE_KINDS } from '../../operation/reasons.js';
import { orUndefined } from '../../operation/thrown.js';

/**
 * The first rule that recognises an error decides; one that throws or returns nonsense is skipped. Undefined when there
 * are no rules.
 */
export function inOrder(...rules: readonly (Classify | undefined)[]): Classify | undefined {
  const given = rules.filter((rule) => rule !== undefined);
  if (given.length < 2) return given[0];
  return (error) => {
    for (const rule of given) {
      const answer = orUndefined(() => rule(error));
      if (tells(answer)) return answer;
    }
    return undefined;
  };
}

/** Checks the answer of the application's code: an async function, for example, returns a promise. */
function tells(answer: ReturnType<Classify>): boolean {
  const kind = typeof answer === 'object' ? answer?.kind : answer;
  return kind !== undefined && FAILURE_KINDS.includes(kind);
}
