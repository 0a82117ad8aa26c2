import { Column, Entity, PrimaryColumn } from 'typeorm';

/** A job that is done. */
@Entity({ name: 'processed_jobs' })
export class ProcessedJob {
  @PrimaryColumn({ name: 'job_id', type: 'text' })
  jobId!: string;

  @Column({ name: 'tenant_id', type: 'text' })
  tenantId!: string;
}

export const CREATE_PROCESSED_JOBS = `
  CREATE TABLE processed_jobs (
    job_id    text PRIMARY KEY,
    tenant_id text NOT NULL
  )`;
