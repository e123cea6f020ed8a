/**
 * Errors inside the bridge are these numbers, which are Linux's. Functions return them negated beside counts, so that
 * an error costs no object. A layout translates them where a channel's other side is another system, and a backing
 * translates the host's into them.
 */
export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const E2BIG = 7;
export const EBADF = 9;
export const EAGAIN = 11;
export const EACCES = 13;
export const EEXIST = 17;
export const ENODEV = 19;
export const ENXIO = 6;
export const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
export const ENOTTY = 25;
export const ETXTBSY = 26;
export const EFBIG = 27;
export const EROFS = 30;
export const ERANGE = 34;
export const ENAMETOOLONG = 36;
export const ENOLCK = 37;
export const ENOSYS = 38;
export const ENOTEMPTY = 39;
export const ELOOP = 40;
export const ENODATA = 61;
export const EOVERFLOW = 75;
export const EOPNOTSUPP = 95;
export const EDQUOT = 122;
export const ESTALE = 116;

/** The kernel refuses a reply whose error is outside -1 ... -511, and its caller would wait for ever. */
export const ERRNO_MAX = 511;
