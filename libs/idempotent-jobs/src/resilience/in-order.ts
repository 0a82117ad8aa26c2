import type { Classify } from './classify.js';

/** The first rule that tells anything has its say; one that throws tells nothing. Undefined: there are no rules. */
export function inOrder(...rules: readonly (Classify | undefined)[]): Classify | undefined {
  const given = rules.filter((rule) => rule !== undefined);
  if (given.length < 2) return given[0];
  return (error) => {
    for (const rule of given) {
      const answer = quietly(rule, error);
      if (answer !== undefined) return answer;
    }
    return undefined;
  };
}

function quietly(rule: Classify, error: unknown): ReturnType<Classify> {
  try {
    return rule(error);
  } catch {
    return undefined;
  }
}
