import { IsEmail, IsInt, IsNotEmpty, IsString, Max, MaxLength, Min } from 'class-validator';

/** The body of `POST /orders`. What it costs is the shop's business, not the customer's. */
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
