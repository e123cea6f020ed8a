import { expect, it } from 'vitest';
import { textLog } from './log.ts';

it('what strangers have named is shown, and not obeyed, by the terminal that shows the log', () => {
  let told = '';
  const log = textLog(
    'info',
    (line) => {
      told += line;
    },
    () => 0,
  );
  const evil = 'a\u001b[2J\u009b31m\u202eb\r\n\u0007';
  log.info({ name: evil, error: new Error(evil), more: { deep: [evil] } }, 'seen');
  expect(told.trimEnd()).not.toMatch(/[\p{Cc}\u202e]/u);
  expect(told).toContain('name="a\\u001b[2J\\x9b31m\\u202eb\\r\\n\\u0007"');
});
