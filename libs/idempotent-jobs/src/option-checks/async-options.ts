import type { FactoryProvider, ModuleMetadata, Provider, Type } from '@nestjs/common';
import { ConfigurationError } from '../operation/errors.js';

/** Options from a factory or from an object of a class. Exactly one of the three `use…` must be given. */
export interface AsyncOptions<Options, Factory> extends Pick<ModuleMetadata, 'imports'> {
  /** What `useFactory` is called with. */
  readonly inject?: FactoryProvider['inject'];
  readonly useFactory?: (...args: any[]) => Options | Promise<Options>;
  /** A class that Nest instantiates, with dependencies from `imports`. */
  readonly useClass?: Type<Factory>;
  /** A provider of one of the `imports`, or of a global module. */
  readonly useExisting?: FactoryProvider['provide'];
}

/**
 * Provides the resulting options under `token`.
 *
 * @param name the name of the options in errors
 * @param ask gets the options from an object of the class
 * @throws ConfigurationError if not exactly one source of options is given
 */
export function asyncProviders<Options, Factory>(
  token: symbol | string,
  name: string,
  { inject = [], useFactory, useClass, useExisting }: AsyncOptions<Options, Factory>,
  ask: (factory: Factory) => unknown,
): Provider[] {
  if ([useFactory, useClass, useExisting].filter((source) => source !== undefined).length !== 1)
    throw new ConfigurationError(`${name}: give one of useFactory, useClass and useExisting.`);
  if (useFactory !== undefined) return [{ provide: token, inject, useFactory }];
  const asked = { provide: token, inject: [(useClass ?? useExisting) as Type], useFactory: ask };
  return useClass === undefined ? [asked] : [useClass, asked];
}
