// Package nft keeps an nf_tables table of our own: whatever others do to it, [Table.Ensure] makes it in one transaction what
// it is to be, and changes nothing where it is.
//
// A [Content] says what a table holds: sets, chains, rules, all as plain values. Ensure reads the table, compares, and has
// the kernel make the difference all at once or not at all: packets meet the table before or the table after, nothing in
// between. [Table.Watch] wakes who keeps the table when somebody else changed it; our own changes are passed over, so that
// a repair is not followed by a look. What the kernel cannot do is [ErrUnsupported], and then nothing has changed.
//
// Some sets are not the content's: their elements change with every peer that comes or goes. Who keeps them adds and
// deletes elements in transactions of their own ([Table.Change]), and says what they must hold in the very moment that
// rules which look into them are set anew.
//
// A [Conn] besides reads what is anybody's: chains, rules, elements. It never changes that, but for what [Conn.Clear] is
// told to remove.
//
// # Which library
//
// sigs.k8s.io/knftables and github.com/google/nftables were compared.
//
// knftables runs the nft program, for each transaction and for each listing, and speaks its language. Rules are readable
// text, and what a rule means is documented. But nft is not on every host nor in a small image, its text differs between
// releases, so that a rule does not read as it was written and can only be compared by a comment; it lists no rules of
// tables that it cannot parse (those of iptables among them); it tells of no changes; and each run is a process, of a few
// milliseconds, where a look by netlink takes a fifth of one and is made whenever somebody changed something.
//
// google/nftables speaks netlink itself. Rules are the kernel's expressions, which is harder to write, and there are some
// eleven of them here. In return they read back just as they were written, and nothing has to be installed. Its releases
// are rare, and what was mended after v0.3.0 is not released, so it is kept on a short lead:
//
//   - an answer that does not come ends in an error and not in a hang, and answers left over are thrown away (exchange.go);
//   - lists of elements are split, as one message does not hold them all (transaction.go);
//   - elements are read without it, since it allocates seven times for one (elements.go);
//   - rules of others are read without it: it leaves out without a word what expressions it does not know, and a rule would
//     seem to drop everything that drops only some (read.go).
package nft
