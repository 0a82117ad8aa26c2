import { Column, Entity, PrimaryColumn } from 'typeorm';

/** What was put aside for an order. */
@Entity({ name: 'reservations' })
export class Reservation {
  @PrimaryColumn({ name: 'tenant_id', type: 'text' })
  tenantId!: string;

  @PrimaryColumn({ name: 'order_id', type: 'text' })
  orderId!: string;

  @Column({ type: 'text' })
  sku!: string;

  @Column({ type: 'integer' })
  quantity!: number;
}
