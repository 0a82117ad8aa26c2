import { IsEmail, IsInt, IsNotEmpty, IsString, Max, MaxLength, Min } from 'class-validator';

/** The body of `POST /orders`. It has no price: the shop sets it, not the customer. */
export class PlaceOrderDto {
  @IsString()
  @IsNotEmpty()
  @MaxLength(100)
  readonly sku!: string;

  @IsInt()
  @Min(1)
  @Max(1000)
  readonly quantity!: number;

  @IsEmail({ require_tld: false })
  readonly customerEmail!: string;
}
