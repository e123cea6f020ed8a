/**
 * Every bound of the stack outside TCP's own (tcp/limits.ts), with what happens at it. A guest is hostile: whatever it can
 * make us remember is counted here, and a guest that reaches its own share never takes another guest's.
 */

/** Neighbours (ARP and NDP) remembered. At the limit the one heard of least recently is forgotten, bound ones never. */
export const NEIGHBOURS_MAX = 2048;
/** Packets that wait for one neighbour to answer (RFC 4861 section 7.2.2 wants at least one). More push out the oldest. */
export const NEIGHBOUR_QUEUE_MAX = 3;
/** Bytes of all packets that wait for neighbours. At the limit a packet is dropped. */
export const NEIGHBOUR_QUEUE_BYTES_MAX: number = 1024 * 1024;

/** Bytes of all unfinished reassemblies. At the limit the oldest is given up. */
export const REASSEMBLY_BYTES_MAX: number = 8 * 1024 * 1024;
/** Bytes of the unfinished reassemblies of one source. At the limit its own oldest is given up. */
export const REASSEMBLY_BYTES_PER_SOURCE: number = 2 * 1024 * 1024;
/** Unfinished reassemblies, refused ones among them, which are remembered to drop their other fragments. Likewise. */
export const REASSEMBLIES_MAX = 2048;
/** Fragments of one datagram: 64 KiB in fragments for an MTU of 576 are 119. More give the datagram up. */
export const FRAGMENTS_PER_DATAGRAM = 128;

/** TCP flows. At the limit a new SYN is dropped, and the guest sends it again. */
export const TCP_FLOWS_MAX = 65_536;
/** TCP flows of one guest, likewise. */
export const TCP_FLOWS_PER_GUEST = 32_768;
/** SYNs whose host connect is not decided. At the limit the oldest of the guest with the most is forgotten. */
export const TCP_PENDING_MAX = 4096;
/** Undecided SYNs of one guest. At the limit its own oldest is forgotten. */
export const TCP_PENDING_PER_GUEST = 1024;
/** Bytes of all TCP buffers of a stack. */
export const TCP_BUFFER_BYTES_MAX: number = 512 * 1024 * 1024;
/** Bytes of the TCP buffers of one guest. At the limit its connections read no more, and drop what would need more. */
export const TCP_BUFFER_BYTES_PER_GUEST: number = 128 * 1024 * 1024;
/** Bytes of free TCP buffers kept for reuse. */
export const TCP_BUFFER_KEPT_BYTES_MAX: number = 32 * 1024 * 1024;

/** UDP mappings, one host socket each. At the limit the least recently used one of the guest with the most is closed. */
export const UDP_MAPPINGS_MAX = 8192;
/** UDP mappings of one guest. At the limit its own least recently used one is closed. */
export const UDP_MAPPINGS_PER_GUEST = 4096;
/** Echo identifiers being pinged, one host socket each. Limits work as those of UDP mappings. */
export const PINGS_MAX = 1024;
/** Echo identifiers of one guest. */
export const PINGS_PER_GUEST = 256;

/** ICMP errors per second, and at once (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)). More are not sent. */
export const ICMP_ERRORS_PER_SECOND = 1000;
export const ICMP_ERRORS_BURST = 200;
