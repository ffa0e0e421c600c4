package node

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// publish tells the world outside, once the node's own part of the overlay works: the rules first, then the subnet file,
// on which container runtimes act, then readiness.
func (n *node) publish(ctx context.Context) {
	if !n.programmed || !n.own.final || n.tables.Links.PendingCount()+n.tables.Addresses.PendingCount()+n.tables.Sysctls.PendingCount() > 0 {
		return
	}
	n.keepRules(ctx)
	if !n.rulesInForce {
		return
	}
	file := n.file()
	content := string(file.Marshal())
	if n.published == content {
		return
	}
	if err := subnet.WriteFile(n.SubnetFile, file); err != nil {
		n.sayOnce("subnet file", err)
		n.setupAt = time.Now().Add(waitAfterFailure) // only to wake up again
		return
	}
	n.forget("subnet file")
	n.published = content
	if !n.ready {
		n.ready = true
		n.Log.WithField("subnet_file", n.SubnetFile).Info("ready")
		if n.Options.Ready != nil {
			n.Options.Ready()
		}
	}
}

// file is the content of the subnet file.
func (n *node) file() subnet.File {
	f := subnet.File{MTU: n.backend.MTU(), IPMasq: n.IPMasq}
	for _, family := range subnet.Families() {
		if r := n.config.Ranges[family]; r.Enabled() {
			f.Networks[family] = []netip.Prefix{r.Network}
			f.Subnets[family] = subnet.Gateway(n.subnets[family])
		}
	}
	return f
}

// previousSubnets reads which subnets an earlier run had from its subnet file.
func (n *node) previousSubnets() (subnets [2]netip.Prefix) {
	f, err := subnet.ReadFile(n.SubnetFile)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			n.Log.WithError(err).Warn("the subnet file of an earlier run is of no use; it will be written anew")
		}
		return subnets
	}
	for _, family := range subnet.Families() {
		if p := f.Subnets[family]; p.IsValid() {
			subnets[family] = p.Masked()
		}
	}
	return subnets
}
