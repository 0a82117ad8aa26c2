import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault-kinds.js';

/** What is left of an answer: the true one, a false error, or nothing. */
export type AnswerLeft = 'answer' | 'error' | 'nothing';

/** What happens before the effect: `late` keeps it waiting, whoever may still be listening. */
export async function sufferBeforeEffect(fault: Fault | undefined): Promise<void> {
  if (fault?.kind === 'late') await sleep(fault.slowMs, undefined, { ref: false });
}

/** What happens between effect and answer. Takes as long as the fault takes, or until the client hangs up. */
export async function sufferBeforeAnswer(fault: Fault | undefined, socket: Socket): Promise<AnswerLeft> {
  switch (fault?.kind) {
    case 'answer_lost':
      socket.destroy();
      return 'nothing';
    case 'error_after_effect':
      return 'error';
    case 'hang':
      await closing(socket);
      return 'nothing';
    case 'slow': {
      const patience = new AbortController();
      await Promise.race([sleep(fault.slowMs, undefined, { ref: false }), closing(socket, patience.signal)]);
      patience.abort();
      return socket.destroyed ? 'nothing' : 'answer';
    }
    default:
      return socket.destroyed ? 'nothing' : 'answer';
  }
}

/** Resolves when the other side is gone; `signal` takes the listener away again. */
function closing(socket: Socket, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (socket.destroyed) return resolve();
    const settle = () => resolve();
    socket.once('close', settle);
    signal?.addEventListener('abort', () => socket.off('close', settle), { once: true });
  });
}
