// Package xtables reads the rules of the legacy iptables (ip_tables, ip6_tables) from the kernel, without the iptables
// program. The kernel returns a table as one block of memory (getsockopt IPT_SO_GET_ENTRIES), as it does to the
// program.
//
// It serves to find out whether another program uses the legacy iptables, and which of its rules drop packets. It
// changes nothing. In particular it creates no table: the kernel would create one that is asked for, so only the tables
// listed in /proc/net/ip_tables_names are read.
package xtables
