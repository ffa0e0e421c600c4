package chaos

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sizeofNfgenmsg is the size of struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h: family, version, resource number.
const sizeofNfgenmsg = 4

func nftMessage(typ uint16) int { return unix.NFNL_SUBSYS_NFTABLES<<8 | int(typ) }

// handles returns the numbers of the IPv4 rules that nf_tables has, by table and chain. A rule that is set again, even as
// it was, gets a number that no rule had before.
func (h *host) handles() (map[string][]uint64, error) {
	all := map[string][]uint64{}
	err := h.Do(func() error {
		request := nl.NewNetlinkRequest(nftMessage(unix.NFT_MSG_GETRULE), unix.NLM_F_DUMP)
		request.AddData(message{unix.NFPROTO_IPV4, 0, 0, 0})
		answers, err := request.Execute(unix.NETLINK_NETFILTER, uint16(nftMessage(unix.NFT_MSG_NEWRULE)))
		if err != nil {
			return fmt.Errorf("%s: list nf_tables rules: %w", h.Name(), err)
		}
		for _, m := range answers {
			var table, chain string
			var handle uint64
			message(m).attributes(sizeofNfgenmsg, func(typ uint16, value []byte) {
				switch typ {
				case unix.NFTA_RULE_TABLE:
					table = unix.ByteSliceToString(value)
				case unix.NFTA_RULE_CHAIN:
					chain = unix.ByteSliceToString(value)
				case unix.NFTA_RULE_HANDLE:
					handle = binary.BigEndian.Uint64(value)
				}
			})
			all[table+" "+chain] = append(all[table+" "+chain], handle)
		}
		return nil
	})
	return all, err
}

// flushRuleset is nft flush ruleset: every table of every family goes, in one transaction.
func (h *host) flushRuleset() error {
	return h.Do(func() error {
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer socket.Close()
		batch := func(typ int, resource byte) *nl.NetlinkRequest {
			r := nl.NewNetlinkRequest(typ, 0)
			r.AddData(message{unix.NFPROTO_UNSPEC, 0, 0, resource})
			return r
		}
		flush := batch(nftMessage(unix.NFT_MSG_DELTABLE), 0)
		flush.Flags |= unix.NLM_F_ACK
		var transaction []byte
		for _, r := range []*nl.NetlinkRequest{
			batch(unix.NFNL_MSG_BATCH_BEGIN, unix.NFNL_SUBSYS_NFTABLES), flush, batch(unix.NFNL_MSG_BATCH_END, unix.NFNL_SUBSYS_NFTABLES),
		} {
			transaction = append(transaction, r.Serialize()...)
		}
		if err := unix.Sendto(socket.GetFd(), transaction, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("%s: flush the ruleset: %w", h.Name(), err)
		}
		messages, _, err := socket.Receive()
		if err != nil {
			return fmt.Errorf("%s: flush the ruleset: %w", h.Name(), err)
		}
		for _, m := range messages {
			if m.Header.Type == unix.NLMSG_ERROR && binary.NativeEndian.Uint32(m.Data) != 0 {
				return fmt.Errorf("%s: flush the ruleset: %w", h.Name(), unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))))
			}
		}
		return nil
	})
}
