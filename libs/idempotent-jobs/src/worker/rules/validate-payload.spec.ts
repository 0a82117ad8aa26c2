import { inspect } from 'node:util';
import { Transform, Type } from 'class-transformer';
import {
  ArrayNotEmpty,
  IsEmail,
  IsIn,
  IsInt,
  IsString,
  MaxLength,
  Min,
  ValidateBy,
  ValidateNested,
} from 'class-validator';
import { describe, expect, it } from 'vitest';
import { InvalidPayloadError } from '../../operation/errors.js';
import { type Validated, validatePayload } from './validate-payload.js';

class Line {
  @IsString()
  sku!: string;

  @IsInt()
  @Min(1)
  quantity!: number;
}

class Address {
  @IsEmail()
  email!: string;

  @ValidateNested({ each: true })
  @Type(() => Line)
  gifts!: Line[];
}

class Order {
  @IsInt()
  amount!: number;

  @IsIn(['EUR', 'USD'])
  currency!: string;

  @ArrayNotEmpty()
  @ValidateNested({ each: true })
  @Type(() => Line)
  lines!: Line[];

  @ValidateNested()
  @Type(() => Address)
  address!: Address;

  get isBig(): boolean {
    return this.amount > 100;
  }
}

const right = {
  amount: 500,
  currency: 'EUR',
  lines: [{ sku: 'a-1', quantity: 2 }],
  address: { email: 'ada@example.com', gifts: [] },
};

async function problems(dto: new () => object, payload: unknown): Promise<readonly string[]> {
  return (rejected(await validatePayload(dto, 'order', payload)).data['problems'] ?? []) as string[];
}

function rejected(validated: Validated): InvalidPayloadError {
  if (validated.kind === 'valid') throw new Error('The payload was found valid');
  return validated.error;
}

describe('validatePayload', () => {
  it('turns a valid payload into an instance of its DTO, nested ones included', async () => {
    const validated = await validatePayload(Order, 'order', right);
    const { payload } = validated as { payload: Order };
    expect(validated.kind).toBe('valid');
    expect(payload).toBeInstanceOf(Order);
    expect(payload.lines[0]).toBeInstanceOf(Line);
    expect(payload.isBig).toBe(true);
    expect(payload).toEqual(expect.objectContaining({ amount: 500, currency: 'EUR' }));
  });

  it('leaves the payload it was given as it was', async () => {
    const given = structuredClone(right);
    await validatePayload(Order, 'order', given);
    expect(given).toEqual(right);
  });

  it('names every problem by its path, at any depth', async () => {
    const payload = {
      amount: 'many',
      currency: 'EUR',
      lines: [
        { sku: 'a-1', quantity: 2 },
        { sku: 7, quantity: 0 },
      ],
      address: { email: 'nobody', gifts: [{ sku: 'b-2', quantity: 0.5 }] },
    };
    const found = await problems(Order, payload);
    expect([...found].toSorted()).toEqual([
      'address.email: email must be an email',
      'address.gifts.0.quantity: quantity must be an integer number',
      'address.gifts.0.quantity: quantity must not be less than 1',
      'amount: amount must be an integer number',
      'lines.1.quantity: quantity must not be less than 1',
      'lines.1.sku: sku must be a string',
    ]);
  });

  it('says in one message which job, which DTO and what is wrong', async () => {
    const error = rejected(await validatePayload(Order, 'order', { ...right, amount: 'many' }));
    expect(error).toBeInstanceOf(InvalidPayloadError);
    expect(error.message).toBe(
      'The payload of job "order" is not a valid Order: amount: amount must be an integer number',
    );
  });

  it('tells of fields that are missing', async () => {
    expect(await problems(Line, {})).toEqual(
      expect.arrayContaining(['sku: sku must be a string', 'quantity: quantity must be an integer number']),
    );
  });

  it.each([
    ['null', null],
    ['undefined', undefined],
    ['string', 'text'],
    ['number', 5],
    ['an array', [right]],
  ])('refuses a payload that is no object: %s', async (what, payload) => {
    expect(await problems(Order, payload)).toEqual([`the payload must be an object, but is ${what}`]);
  });

  it('never repeats a value of the payload, in the message or in the data', async () => {
    class Card {
      @IsInt()
      number!: number;

      @MaxLength(3)
      code!: string;

      @IsEmail()
      email!: string;

      @ValidateNested()
      @Type(() => Line)
      line!: Line;
    }
    const secret = '4111-1111-1111-1111';
    const error = rejected(
      await validatePayload(Card, 'pay', {
        number: secret,
        code: secret,
        email: secret,
        line: { sku: { secret }, quantity: secret },
      }),
    );
    expect(error.data['problems']).toHaveLength(6);
    expect(JSON.stringify([error.message, error.data, error.stack, error.cause])).not.toContain('4111');
  });

  it('takes nothing from a "__proto__" or "constructor" in the payload', async () => {
    const sly = JSON.parse(
      `{"sku":"a","quantity":1,"__proto__":{"quantity":7,"isAdmin":true},"constructor":{"isAdmin":true}}`,
    ) as unknown;
    const validated = await validatePayload(Line, 'order', sly);
    const { payload } = validated as { payload: Line & { isAdmin?: boolean } };
    expect(payload).toBeInstanceOf(Line);
    expect(payload.quantity).toBe(1);
    expect(payload.isAdmin).toBeUndefined();
    expect(({} as { isAdmin?: boolean }).isAdmin).toBeUndefined();
  });

  const secret = '4111-1111-1111-1111';

  class BrokenType {
    @Type(() => {
      throw new Error(`no such type: ${secret}`);
    })
    part!: object;
  }

  class BrokenTransformer {
    @Transform(({ value }) => {
      throw new RangeError(`cannot parse ${String(value)}`);
    })
    part!: string;
  }

  class BrokenValidator {
    @ValidateBy({
      name: 'broken',
      validator: {
        validate: (value) => {
          throw Object.assign(new TypeError(`cannot check ${String(value)}`), { value });
        },
      },
    })
    part!: string;
  }

  class ThrowsText {
    @Transform(({ value }) => {
      throw value;
    })
    part!: string;
  }

  class ThrowsNull {
    @Transform(() => {
      throw null;
    })
    part!: string;
  }

  it.each([
    ['type function', BrokenType, 'Error'],
    ['transformer', BrokenTransformer, 'RangeError'],
    ['validator', BrokenValidator, 'TypeError'],
    ['transformer that throws a text', ThrowsText, 'string'],
    ['transformer that throws null', ThrowsNull, 'object'],
  ])(
    'takes a payload for invalid whose %s throws, and tells the error’s name, but no value and no cause',
    async (_what, dto, name) => {
      const error = rejected(await validatePayload(dto, 'order', { part: secret }));
      expect(error.data['problems']).toEqual([`validation itself failed with ${name}`]);
      expect(error.cause).toBeUndefined();
      expect(inspect(error, { depth: null, showHidden: true })).not.toContain('4111');
    },
  );

  it('refuses a payload nested deeper than the stack instead of throwing', async () => {
    class Tree {
      @ValidateNested()
      @Type(() => Tree)
      child!: object;
    }
    const deep = JSON.parse(`${'{"child":'.repeat(50_000)}null${'}'.repeat(50_000)}`) as unknown;
    expect(await problems(Tree, deep)).toEqual(['validation itself failed with RangeError']);
  });
});
