import { BadRequestException, createParamDecorator, type ExecutionContext } from '@nestjs/common';
import type { Request } from 'express';

/** Matches what clients commonly use: UUIDs, ULIDs, `order-17`. */
const PATTERN = /^[\w.-]{1,100}$/;

/** The Idempotency-Key of the request, which becomes the order's id. */
export const OrderKey = createParamDecorator((_: unknown, context: ExecutionContext): string => {
  const key = context.switchToHttp().getRequest<Request>().header('idempotency-key');
  if (key === undefined)
    throw new BadRequestException('The header idempotency-key is missing: it names the order');
  if (!PATTERN.test(key))
    throw new BadRequestException(
      'The header idempotency-key may hold up to 100 letters, digits, "-", "_" and "."',
    );
  return key;
});
