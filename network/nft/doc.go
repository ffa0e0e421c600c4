// Package nft keeps an nf_tables table that belongs to this program. [Table.Ensure] compares the table in the kernel
// with the desired content and repairs any difference in one transaction.
//
// A [Content] describes a table as plain values: sets, chains and rules. The kernel applies a transaction completely or
// not at all, so a packet sees either the old table or the new one. [Table.Watch] notifies the caller when another
// process changed the table; it skips our own changes, so that a repair does not cause another read. A kernel that
// lacks a feature returns [ErrUnsupported], and nothing has changed.
//
// The elements of an external set ([Set.External]) are not part of the content, because they change with every peer
// that is added or removed. The caller adds and deletes them in transactions of its own ([Table.Change]), and supplies
// them to Ensure when the rules that look them up are replaced.
//
// A [Conn] also reads the tables, chains, rules and elements of other programs. It changes them only in [Conn.Clear]
// and [Conn.RemoveTable].
//
// # Which library
//
// sigs.k8s.io/knftables and github.com/google/nftables were compared.
//
// knftables runs the nft program for each transaction and each listing, and speaks its language. Its rules are readable
// text with documented semantics. But:
//
//   - nft is not installed on every host, nor in a small image;
//   - its text differs between releases: a rule does not read back as it was written, so rules can be compared only by
//     a comment;
//   - it cannot list tables that it cannot parse, such as those of iptables;
//   - it does not notify of changes;
//   - each run is a process and takes a few milliseconds. A read over netlink takes a fifth of one, and there is one
//     after every external change.
//
// google/nftables speaks netlink itself. Its rules are kernel expressions, which are harder to write; this project
// needs some eleven kinds. They read back exactly as written, and nothing has to be installed. Its releases are rare,
// and fixes made after v0.3.0 are not released, so this package works around the following:
//
//   - a missing reply ends in an error instead of a hang, and stale replies are discarded (exchange.go);
//   - element lists are split, because one message cannot hold them all (transaction.go);
//   - elements are decoded here, because the library allocates seven times for each (elements.go);
//   - other programs' rules are decoded here, because the library silently omits expressions that it does not know: a
//     rule that drops some packets would seem to drop all (read.go).
package nft
