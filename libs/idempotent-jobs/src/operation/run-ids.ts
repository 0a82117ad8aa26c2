import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';

/**
 * Makes run ids from host, process and a running number, e.g. `web-3:4711:x7Kq/182`. The random part distinguishes a
 * restarted container, which may get the same host name and process id, from its predecessor.
 */
export function runIds(): () => string {
  const process_ = `${hostname()}:${process.pid}:${randomBytes(3).toString('base64url')}`;
  let run = 0;
  return () => {
    run += 1;
    return `${process_}/${run}`;
  };
}
