import { Column, Entity, PrimaryColumn } from 'typeorm';

/** Something that a tenant sells, and how much of it is left. */
@Entity({ name: 'products' })
export class Product {
  @PrimaryColumn({ name: 'tenant_id', type: 'text' })
  tenantId!: string;

  @PrimaryColumn({ type: 'text' })
  sku!: string;

  @Column({ name: 'unit_price_cents', type: 'integer' })
  unitPriceCents!: number;

  @Column({ type: 'text' })
  currency!: string;

  @Column({ type: 'integer' })
  available!: number;
}
