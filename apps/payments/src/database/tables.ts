import { Product } from '../inventory/product.entity.js';
import { Reservation } from '../inventory/reservation.entity.js';
import { Order } from '../orders/order.entity.js';

/** The shop's own tables. */
export const TABLES = [Product, Order, Reservation];
