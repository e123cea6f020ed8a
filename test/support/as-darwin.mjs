/** Preloaded by a test: Node that takes this machine for a Mac, once koffi has found its library for the real one. */
import 'koffi';

Object.defineProperty(process, 'platform', { value: 'darwin' });
