// A file system that lives in this process's memory, at a mount point: node memory-fs.mjs FOLDER. It serves until somebody says
// `umount FOLDER`. The thread blocks in the kernel, so the program that uses the files is another one. Needs root and /dev/fuse.
import { MemoryFs, serveFs, systemClock } from 'drydock/fsbridge';

serveFs({
  host: new MemoryFs(systemClock),
  target: process.argv[2],
  name: 'memory',
  onStart: () => process.send?.('serving'),
});
