import type { InstanceWrapper } from '@nestjs/core/injector/instance-wrapper.js';

/** A class as far as its decorators' metadata and its name are asked for. */
export interface ProvidedClass {
  readonly name: string;
  readonly prototype: object;
}

/** The class of what a provider provides; undefined for values and factories whose result has none. */
export function providedClassOf(provider: InstanceWrapper): ProvidedClass | undefined {
  const isFromFactory = !provider.metatype || provider.inject;
  const providedClass = isFromFactory
    ? (provider.instance as object | undefined)?.constructor
    : provider.metatype;
  return typeof providedClass === 'function' ? providedClass : undefined;
}
