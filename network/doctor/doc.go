// Package doctor examines a node and its paths to other nodes, and reports what is wrong and how to repair it. It
// changes nothing.
//
// It has three parts:
//
//	gather  reads facts: from the daemon, the store, the kernel and files (gather*.go)
//	probe   measures how far packets get to other nodes (package probe)
//	check   turns facts into findings, in pure functions, one for each check (check_*.go, diagnose_path.go)
//
// The daemon repairs what it can, so doctor mostly meets what it cannot: a firewall on the path, a file that was
// removed, a daemon that does not run. Only the list of peers and the desired state come from the daemon. Without it,
// doctor examines what the daemon left behind.
//
// A finding must be right: what may be wrong is a warning. ICMP that is filtered somewhere is no problem as long as the
// overlay's packets pass.
package doctor
