package nft

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ErrUnsupported means that this kernel has no nf_tables, or lacks a part of it, or does not let us use it.
var ErrUnsupported = errors.New("the kernel has no packet filter for this (nf_tables, or a part of it), or CAP_NET_ADMIN is missing")

const (
	// sendBuffer bounds how much one transaction can say. The kernel takes what root asks for, and else what
	// net.core.wmem_max allows: twice 208 KiB, for 26,000 addresses of IPv4 or 15,000 of IPv6.
	sendBuffer = 8 << 20
	// patience is how long an answer may take. The kernel answers before it is done with the request, so this only keeps
	// an answer that never comes from stopping the daemon: the library waits for one to each message of a transaction,
	// and there is but one if the kernel refuses the whole.
	patience = 5 * time.Second
)

// Conn is a connection to nf_tables in one network namespace. Its methods are for one goroutine.
type Conn struct {
	conn     *nftables.Conn
	socket   *netlink.Conn // of conn
	patience time.Duration
}

// Dial connects to the network namespace of the calling thread, or returns [ErrUnsupported].
func Dial() (*Conn, error) {
	c := &Conn{patience: patience}
	var err error
	// The library keeps its socket to itself.
	c.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
		c.socket = s
		return s.SetWriteBuffer(sendBuffer)
	}))
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", explain(err))
	}
	if err := c.probe(); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for the packet filter: %w", err), c.Close())
	}
	return c, nil
}

// Close gives the socket back. What is in the kernel stays.
func (c *Conn) Close() error { return c.conn.CloseLasting() }

// Port tells our own changes from those of others in what [Watch] tells.
func (c *Conn) Port() uint32 { return c.socket.PID() }

// ask makes one exchange with the kernel. The other methods go through it.
func (c *Conn) ask(exchange func() error) error {
	if err := c.socket.SetDeadline(time.Now().Add(c.patience)); err != nil {
		return err
	}
	err := exchange()
	if err != nil {
		c.drain()
	}
	return err
}

// drain throws away answers that were not taken in, so that the next exchange does not take them for its own.
func (c *Conn) drain() {
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		b := make([]byte, 64<<10) // what is cut off is of no interest
		for {
			_, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
			if err != nil && err != unix.EINTR && err != unix.ENOBUFS { // the latter says once that something was lost
				return
			}
		}
	})
}

// probe asks for what takes nothing but nf_tables and the permission.
func (c *Conn) probe() error {
	_, err := c.Generation()
	return err
}

// Generation is the number of the ruleset's generation: as long as it is the same, nothing has changed.
func (c *Conn) Generation() (n uint32, err error) {
	const id = 1 // NFTA_GEN_ID
	return n, c.ask(func() error {
		messages, err := c.socket.Execute(netlink.Message{
			Header: netlink.Header{Type: nftMessage(unix.NFT_MSG_GETGEN), Flags: netlink.Request},
			Data:   nfgenmsg(unix.NFPROTO_UNSPEC),
		})
		if errors.Is(err, unix.EINVAL) { // nfnetlink_rcv_msg, where no such subsystem is registered
			err = fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		for _, m := range messages {
			if len(m.Data) >= sizeofNfgenmsg {
				n = number(attr(m.Data[sizeofNfgenmsg:], id))
			}
		}
		return explain(err)
	})
}

// explain adds to an error of the kernel's whether it means that the kernel cannot do this at all.
func explain(err error) error {
	for _, e := range []error{unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
	}
	return err
}

// explainWhole is explain for a transaction that begins with the table: what it does not find is a part of nf_tables.
func explainWhole(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return explain(err)
}

func nftMessage(typ uint16) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ)
}

// nfgenmsg returns a struct nfgenmsg (include/uapi/linux/netfilter/nfnetlink.h), which every message begins with: family,
// version 0, and a resource id that nf_tables has no use for here.
func nfgenmsg(family byte) []byte { return []byte{family, 0, 0, 0} }

const sizeofNfgenmsg = 4
