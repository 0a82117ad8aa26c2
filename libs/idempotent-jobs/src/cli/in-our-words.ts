/** Services name their own methods and options; who is here has those of the command line. */
export function inOurWords(message: string): string {
  return message
    .replace('Give another: { deadline }', 'Give another: --deadline <time>')
    .replace('with redriveEdited()', 'with redriveEdited() in the application');
}
