// Holds a POSIX record lock: `node locker.mjs FILE TYPE START LENGTH [wait]`. Prints `waiting`, then `locked` or the
// error's name, and keeps the lock until its standard input ends. A process of its own, since such locks belong to one.
import { closeSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import koffi from 'koffi';

const [file, type, start, length, wait] = process.argv.slice(2);
const fcntl = koffi.load(null).func('int fcntl(int, int, ...)');
const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));
const F_SETLK = 6;
const F_SETLKW = 7;

const fd = openSync(file, 'r+');
const lock = new BigInt64Array(4);
new Int16Array(lock.buffer)[0] = Number(type);
lock[1] = BigInt(start);
lock[2] = BigInt(length);
console.log('waiting');
const result = fcntl(fd, wait ? F_SETLKW : F_SETLK, 'void *', new Uint8Array(lock.buffer));
console.log(result === 0 ? 'locked' : names.get(koffi.errno()));
// Closing any descriptor of the file ends the process's locks.
process.stdin.on('data', () => {
  closeSync(openSync(file, 'r'));
  console.log('closed');
});
process.stdin.on('end', () => closeSync(fd));
