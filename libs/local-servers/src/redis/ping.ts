import { connect } from 'node:net';

const TIMEOUT_MS = 1_000;

/** Whether a Redis on this port takes commands. While it loads its data it answers, but not with PONG. */
export function answersPing(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', timeout: TIMEOUT_MS }, () => socket.write('PING\r\n'));
    const settle = (isPong: boolean) => {
      socket.destroy();
      resolve(isPong);
    };
    socket.once('data', (answer) => settle(answer.toString().startsWith('+PONG')));
    socket.once('error', () => settle(false));
    socket.once('timeout', () => settle(false));
    socket.once('close', () => resolve(false));
  });
}
