// Package nflog receives the packets that rules of nf_tables log to a group ("log group 7"), such as those that a
// network policy denies.
//
// The rule bounds the rate ("limit rate 10/second"), so that a flood of denied packets costs the node no more than the
// rule's counter. Messages that do not fit into the socket's buffer are lost, and [Read] says so.
//
// No further library is needed: the protocol is two messages and a handful of attributes
// (include/uapi/linux/netfilter/nfnetlink_log.h).
package nflog
