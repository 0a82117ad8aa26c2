import {
  OPTIONAL_DEPS_METADATA,
  PARAMTYPES_METADATA,
  SELF_DECLARED_DEPS_METADATA,
} from '@nestjs/common/constants.js';
import { describe, expect, it } from 'vitest';
import { PARTS, PUBLIC } from './providers.js';

type Class = new (...args: never[]) => object;

const CLASSES = [...PARTS, ...PUBLIC].filter((provider): provider is Class => typeof provider === 'function');

/** Parameters of a constructor of which Nest cannot know what they are: the class was imported as a type, for example. */
function unknownParameters(target: Class): number[] {
  const types = (Reflect.getMetadata(PARAMTYPES_METADATA, target) ?? []) as unknown[];
  const named = (Reflect.getMetadata(SELF_DECLARED_DEPS_METADATA, target) ?? []) as { index: number }[];
  const optional = (Reflect.getMetadata(OPTIONAL_DEPS_METADATA, target) ?? []) as number[];
  const isTold = (index: number): boolean =>
    optional.includes(index) || named.some((parameter) => parameter.index === index);
  return types.flatMap((type, index) =>
    (type === Object || type === Function || type === undefined) && !isTold(index) ? [index] : [],
  );
}

describe('what Nest makes', () => {
  it.each(CLASSES.map((target) => [target.name, target] as const))(
    'has constructor parameters that Nest can tell: %s',
    (_name, target) => {
      expect(unknownParameters(target)).toEqual([]);
    },
  );

  it('is listed once', () => {
    expect(CLASSES.length).toBe(new Set(CLASSES).size);
  });
});
