import { getMetadataStorage } from 'class-validator';
import type { PayloadClass } from '../../worker/rules/validate-payload.js';

/** The fields of payload classes that are validated as URLs, `@IsUrl()`: addresses that whoever enqueues has given. */
export function urlFieldsOf(payloads: readonly PayloadClass[]): readonly string[] {
  const fields = payloads.flatMap((payload) =>
    getMetadataStorage()
      .getTargetValidationMetadatas(payload, '', false, false)
      .filter(({ name }) => name === 'isUrl')
      .map(({ propertyName }) => propertyName),
  );
  return [...new Set(fields)];
}
