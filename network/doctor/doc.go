// Package doctor examines a node and its way to the others, and says what is wrong and how to cure it. It changes nothing.
//
// It is in three parts:
//
//	gather  facts   what the daemon says, what etcd answers, what the kernel and the files hold (gather*.go)
//	probe   facts   how far packets get to other nodes (package probe)
//	judge   facts → findings, in pure functions: a check each, and none of them asks anything (check_*.go)
//
// The daemon sets right what it can, so most of what a doctor meets is what it cannot: a firewall on the way, a file that
// somebody removed, a daemon that does not run. So nothing here needs the daemon but the names of the peers and what is wanted;
// without it, what it left is examined.
//
// A finding is right or it is not made. What only may be wrong is a warning; that ICMP is filtered somewhere is none, as long
// as the overlay's packets get through.
package doctor
