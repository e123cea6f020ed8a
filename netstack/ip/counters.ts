/** What the stack counts, for metrics and for tests: one number per thing that can happen to a packet. Each only grows. */
export class StackCounters {
  framesIn = 0;
  framesOut = 0;
  bytesIn = 0;
  bytesOut = 0;
  /** Frames that the link did not take. */
  linkFull = 0;

  ethernetRunts = 0;
  ethernetNotForUs = 0;
  ethernetVlanDropped = 0;
  ethernetUnknownType = 0;
  /** Source is a group address or our own. */
  ethernetBadSource = 0;

  arpMalformed = 0;
  arpRequests = 0;
  arpReplies = 0;
  /** Another station claimed the gateway's address. */
  arpConflicts = 0;
  /** A claim to a bound or confirmed address by another station. */
  neighbourSpoofed = 0;
  neighbourEvicted = 0;
  neighbourUnresolved = 0;
  neighbourQueueDropped = 0;

  ipMalformed = 0;
  ipOptionsRefused = 0;
  /** Source address that cannot be: not of the subnet, loopback, multicast, our own (land), mapped. */
  ipMartianSource = 0;
  /** Destination that must not leave: loopback, reserved, other guests, mapped. */
  ipMartianDestination = 0;
  /** Source address bound to another station. */
  ipSpoofed = 0;
  ipTtlExceeded = 0;
  ipUnknownProtocol = 0;
  ipMulticastDropped = 0;
  ipFragmentsIn = 0;
  ipReassembled = 0;
  ipReassemblyTimeouts = 0;
  /** Datagrams given up for overlapping, too many, too long or misaligned fragments. */
  ipReassemblyRefused = 0;
  /** Datagrams given up at the memory limits. */
  ipReassemblyEvicted = 0;
  ipFragmentsOut = 0;
  ipTooLarge = 0;

  /** Reports and queries of IGMP and MLD; ours are `groupQueries`. */
  groupMessagesIn = 0;
  groupMalformed = 0;
  groupQueries = 0;
  /** Datagrams of relayed groups, from the host's networks to guests. */
  groupDatagramsIn = 0;

  icmpMalformed = 0;
  icmpEchoAnswered = 0;
  icmpEchoForwarded = 0;
  icmpEchoReplies = 0;
  icmpErrorsIn = 0;
  icmpErrorsOut = 0;
  icmpErrorsSuppressed = 0;
  ndpMalformed = 0;
  ndpSolicitations = 0;
  ndpAdvertisementsIn = 0;
  routerAdvertisements = 0;
  pingsEvicted = 0;

  udpMalformed = 0;
  udpIn = 0;
  udpOut = 0;
  udpMappingsOpened = 0;
  udpMappingsExpired = 0;
  udpMappingsEvicted = 0;
  udpHostErrors = 0;
  udpInsideUnreachable = 0;

  tcpMalformed = 0;
  tcpFlowsOpened = 0;
  tcpFlowsClosed = 0;
  tcpFlowsRefused = 0;
  /** Pending SYNs forgotten at the limits. */
  tcpPendingEvicted = 0;
  tcpTableFull = 0;
  tcpNoFlow = 0;

  egressDenied = 0;
}
