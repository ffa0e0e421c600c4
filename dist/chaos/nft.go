package chaos

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sizeofNfgenmsg is the size of struct nfgenmsg, include/uapi/linux/netfilter/nfnetlink.h: family, version, resource number.
const sizeofNfgenmsg = 4

func nftMessage(typ uint16) int { return unix.NFNL_SUBSYS_NFTABLES<<8 | int(typ) }

// handles returns the numbers of the rules that nf_tables has, by family, table and chain. A rule that is set again, even as
// it was, gets a number that no rule had before.
func (h *host) handles() (map[string][]uint64, error) {
	all := map[string][]uint64{}
	err := h.Do(func() error {
		request := nl.NewNetlinkRequest(nftMessage(unix.NFT_MSG_GETRULE), unix.NLM_F_DUMP)
		request.AddData(message{unix.NFPROTO_UNSPEC, 0, 0, 0})
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
			name := fmt.Sprintf("%d %s %s", m[0], table, chain)
			all[name] = append(all[name], handle)
		}
		return nil
	})
	return all, err
}

// flushRuleset is nft flush ruleset: every table of every family goes, in one transaction.
func (h *host) flushRuleset() error {
	return h.transaction("flush the ruleset", nftRequest(unix.NFT_MSG_DELTABLE, unix.NFPROTO_UNSPEC))
}

// nftRequest is a part of a transaction.
func nftRequest(typ int, family byte) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(nftMessage(uint16(typ)), unix.NLM_F_ACK)
	r.AddData(message{family, 0, 0, 0})
	return r
}

// nftString and nftNumber are attributes: a text ends with a zero, and a number has its bytes in the network's order.
func nftString(typ int, text string) *nl.RtAttr { return nl.NewRtAttr(typ, nl.ZeroTerminated(text)) }

func nftNumber(typ int, n uint32) *nl.RtAttr {
	return nl.NewRtAttr(typ, binary.BigEndian.AppendUint32(nil, n))
}

// transaction has the kernel do one thing, or say why not.
func (h *host) transaction(what string, request *nl.NetlinkRequest) error {
	err := h.Do(func() error {
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer socket.Close()
		bound := func(typ int) []byte {
			r := nl.NewNetlinkRequest(typ, 0)
			r.AddData(message{unix.NFPROTO_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES})
			return r.Serialize()
		}
		batch := slices.Concat(bound(unix.NFNL_MSG_BATCH_BEGIN), request.Serialize(), bound(unix.NFNL_MSG_BATCH_END))
		if err := unix.Sendto(socket.GetFd(), batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		messages, _, err := socket.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type == unix.NLMSG_ERROR && binary.NativeEndian.Uint32(m.Data) != 0 {
				return unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", h.Name(), what, err)
	}
	return nil
}
