// Package conntrack reads the kernel's connection tracking entries of an address, deletes entries, and makes them
// liberal. It serves network policies: a connection that was allowed passes as long as its entry lives, whatever the
// rules say since.
//
// For IPv4 the kernel selects the entries (CTA_FILTER, since Linux 5.8), so that the cost depends on what is found but
// for the kernel's walk over the table. For IPv6 its filter is wrong, and [Conn.Of] selects from all entries itself, as
// it does with a kernel that ignores the filter.
//
// github.com/vishvananda/netlink lists the whole table and decodes all of it, and opens a socket for each entry to
// delete.
package conntrack
