package node

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/filewatch"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// publish tells the world outside, once the node's own part of the overlay works: the rules first, then the subnet file,
// on which container runtimes act, then readiness.
func (n *node) publish(ctx context.Context) {
	if !n.programmed || !n.own.final || n.ownPending() > 0 {
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
	if err := subnetfile.Write(n.SubnetFile, file); err != nil {
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

// watchFiles wakes the loop whenever somebody may have touched what the node has written.
func (n *node) watchFiles(ctx context.Context) {
	wake := func() {
		select {
		case n.fileNews <- struct{}{}:
		default: // the loop will look anyway
		}
	}
	for ctx.Err() == nil {
		if err := filewatch.Watch(ctx, wake, n.SubnetFile, subnetfile.StatusPath(n.SubnetFile), n.cache.path); err != nil {
			n.Log.WithError(err).WithField("every", n.Resync.String()).
				Warn("the files that this node writes cannot be watched (are there inotify instances left? see fs.inotify.max_user_instances); they are looked at less often")
			sleep(ctx, n.Resync)
		}
	}
}

// lookAtFiles sees to it that what somebody else wrote or removed is written again.
func (n *node) lookAtFiles(now time.Time) {
	if n.published != "" {
		switch data, err := os.ReadFile(n.SubnetFile); {
		case errors.Is(err, fs.ErrNotExist):
			n.noteFileRepair(now, "missing")
		case err != nil || string(data) != n.published:
			n.noteFileRepair(now, "changed")
		}
	}
	if s, err := subnetfile.ReadStatus(n.SubnetFile); err != nil || s != n.told.usable {
		n.told.usable = subnetfile.Status{} // none that is ever told, so that it is written
	}
	if _, err := os.Stat(n.cache.path); errors.Is(err, fs.ErrNotExist) && n.cache.writes > 0 && !n.cache.writing {
		n.cache.leasesChanged(now)
	}
}

func (n *node) noteFileRepair(now time.Time, cause string) {
	n.published = ""
	if now.Sub(n.fileSaid) > fightSaidEvery {
		n.fileSaid = now
		n.Log.WithFields(logrus.Fields{"subnet_file": n.SubnetFile, "found": cause}).Warn("somebody else touched the subnet file; writing it again")
	}
	n.noteRepair(now, network.Repair{Kind: "subnet file", Cause: cause, Key: n.SubnetFile, Count: 1})
}

// file is the content of the subnet file.
func (n *node) file() subnetfile.File {
	f := subnetfile.File{MTU: n.backend.MTU(), IPMasq: n.IPMasq}
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
	f, err := subnetfile.Read(n.SubnetFile)
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
