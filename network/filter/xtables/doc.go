// Package xtables reads what the legacy iptables (ip_tables, ip6_tables) has in the kernel, without its program: the kernel
// gives a table out as one block of memory, to the program just as to us.
//
// It is for looking, at tables that are anybody's: whether this interface is in use at all, and what drops packets. Nothing
// is changed, and no table is made by looking at it: only those are asked for that the kernel names as being there.
package xtables
