import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';

/** A class, reduced to its name and its decorators' metadata. */
export interface ProvidedClass {
  readonly name: string;
  readonly prototype: object;
}

/** The class of a provider's instance. Undefined for values and for factories whose result has no class. */
export function providedClassOf(provider: InstanceWrapper): ProvidedClass | undefined {
  const isFromFactory = !provider.metatype || provider.inject;
  const providedClass = isFromFactory
    ? (provider.instance as object | undefined)?.constructor
    : provider.metatype;
  return typeof providedClass === 'function' ? providedClass : undefined;
}
