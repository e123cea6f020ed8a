/** Versions of the Engine API that are spoken: 1.24 to 1.51, as a dockerd 28. */
export const API_MINOR_MIN = 24;
export const API_MINOR_MAX = 51;
