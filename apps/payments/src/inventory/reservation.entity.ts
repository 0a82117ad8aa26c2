import { Column, Entity, PrimaryColumn } from 'typeorm';

/** `reserved` becomes `shipped` or `released`, which are final. */
export type ReservationStatus = 'reserved' | 'shipped' | 'released';

/** The goods put aside for an order. */
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

  @Column({ type: 'text', default: 'reserved' })
  status!: ReservationStatus;

  @Column({ name: 'shipped_at', type: 'timestamptz', nullable: true })
  shippedAt!: Date | null;
}
