// Package sctp is SCTP (RFC 9260) in user space, over raw IP sockets, for tests of network policies on kernels without
// SCTP. It has the part of the API of github.com/ishidawataru/sctp that Kubernetes' test program agnhost uses, and
// replaces that module in the build of it: see ../tools/go.mod.
//
// What filters packets sees no difference to the kernel's own SCTP: associations are set up by INIT, INIT ACK, COOKIE
// ECHO and COOKIE ACK, carry DATA, which is acknowledged, and end by SHUTDOWN, as connection tracking in the kernel
// (net/netfilter/nf_conntrack_proto_sctp.c) expects. There is one stream and one chunk a packet, a message is lost if
// it is larger than a packet, cookies are not signed, and there is neither congestion control nor multihoming.
//
// It needs CAP_NET_RAW, which container runtimes give to containers by default.
package sctp
