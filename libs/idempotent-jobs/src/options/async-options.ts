import type { FactoryProvider, ModuleMetadata, Provider, Type } from '@nestjs/common';
import { ConfigurationError } from '../operation/errors.js';

/** Options that a factory gives, or an object of a class. Exactly one of the three `use…` is to be given. */
export interface AsyncOptions<Options, Factory> extends Pick<ModuleMetadata, 'imports'> {
  /** What `useFactory` is called with. */
  readonly inject?: FactoryProvider['inject'];
  readonly useFactory?: (...args: any[]) => Options | Promise<Options>;
  /** A class that Nest makes, with its dependencies out of `imports`. */
  readonly useClass?: Type<Factory>;
  /** A provider of one of the `imports`, or of a global module. */
  readonly useExisting?: FactoryProvider['provide'];
}

/**
 * Provides what the options come to under `token`.
 *
 * @param name what an error calls the options by
 * @param ask how an object of the class is asked for them
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
