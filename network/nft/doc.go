// Package nft keeps an nf_tables table that belongs to this program. [Table.Ensure] compares the table in the kernel
// with the desired content and repairs any difference in one transaction.
//
// A [Content] describes a table as plain values: sets, verdict maps, chains and rules. The kernel applies a transaction
// completely or not at all, so a packet sees either the old table or the new one. [Table.Watch] notifies the caller
// when another process changed the table; it skips our own changes, so that a repair does not cause another read. A
// kernel that lacks a feature returns [ErrUnsupported], and nothing has changed.
//
// The elements of an external set ([Set.External]) are not part of the content, because they change with every peer
// that is added or removed. The caller adds and deletes them in transactions of its own ([Table.Change]), and supplies
// them to Ensure when the rules that look them up are replaced.
//
// A [Mirror] keeps a table of a thousand sets and chains. It remembers what it left in the kernel, and reads only what
// another process changed.
//
// A repair or a change deletes and creates only what differs. A base chain that is in sync stays registered: the kernel
// drops packets that wait in an NFQUEUE, of any program, while a base chain is registered or unregistered.
//
// A [Conn] also reads the tables, chains, rules and elements of other programs. It changes them only in [Conn.Clear]
// and [Conn.RemoveTable].
//
// # Cost
//
// To add an element to a set and remove it, in two transactions, takes as long with 100 elements in the set as with
// 100,000 (BenchmarkChangeOne). That holds for sets and maps without ranges. The kernel keeps ranges of concatenated
// keys in another structure (net/netfilter/nft_set_pipapo.c) and copies all of it for each transaction: with 10,000
// elements that takes some 20 times as long as with 100. So keep ranges in small sets of their own.
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
// needs some eighteen kinds. They read back exactly as written, and nothing has to be installed. Its releases are
// rare. Of v0.3.0 was measured:
//
//   - It cannot read back a verdict map: GetSets returns the type of the verdict in place of the key's.
//   - It requests an acknowledgement for each message and an echo of each rule. With 500 rules in a transaction they
//     overrun the default receive buffer, and the outcome is lost (ENOBUFS). An error does not say which message
//     failed, and one that rejects a whole transaction leaves it waiting for more replies.
//   - It lists the rules of one chain at a time: 1,000 requests for 1,000 chains.
//   - It allocates three times for each element that it writes, and seven times for each that it reads.
//   - It silently omits expressions that it does not know: a rule that drops some packets would seem to drop all.
//
// So this package has its own socket (exchange.go), transactions (transaction.go) and listings (read.go, elements.go).
// Of the library it uses the types, and the encoding of expressions.
//
// The kernel lists NFT_REG32_00 as NFT_REG_1, which is the same register. Rules must be written that way, or they do
// not read back as written (family.go).
package nft
