package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/backoff"
	"github.com/selvage-net/selvage/network/errno"
	"github.com/selvage-net/selvage/network/filewatch"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// publisher writes what others read: the subnet file, on which container runtimes act, and beside it the status file
// for the CNI plugin. It reports readiness once, after the first subnet file. It belongs to the loop's goroutine.
type publisher struct {
	path    string // of the subnet file
	journal *journal
	onReady func() // may be nil

	content string            // of the subnet file as last written; empty: it has to be written
	status  subnetfile.Status // as last written
	ready   bool

	file, state published // how the writing of the two files goes
}

// published is how the writing of one file goes.
type published struct {
	repair  bool            // the next write is a repair: another process changed or removed the file
	failed  bool            // the last write
	backoff backoff.Backoff // between repairs, and between attempts that fail
}

// publishBackoff spaces the writes of a file that another process keeps changing, or that fail.
var publishBackoff = backoff.Policy{Min: waitAfterFailure / 10, Max: time.Minute, Settle: 60}

// due reports whether the file may be written now; otherwise it sets the alarm.
func (p *published) due(wake *alarm) bool {
	if !p.repair && !p.failed || p.backoff.Due(wake.now) {
		return true
	}
	wake.set(p.backoff.At())
	return false
}

// written takes in the result of a write.
func (p *published) written(wake *alarm, err error) {
	if p.repair || err != nil {
		p.backoff.Next(publishBackoff, wake.now)
	}
	p.repair, p.failed = p.repair && err != nil, err != nil
	if p.failed {
		wake.set(p.backoff.At())
	}
}

// subnetFile writes the subnet file unless it has this content.
func (p *publisher) subnetFile(wake *alarm, f subnetfile.File) {
	content := string(f.Marshal())
	if p.content == content || !p.file.due(wake) {
		return
	}
	err := subnetfile.Write(p.path, f)
	if p.file.written(wake, err); err != nil {
		p.journal.problem(topicSubnetFile, errno.Written(p.path, err))
		return
	}
	p.journal.resolved(topicSubnetFile)
	p.content = content
	if !p.ready {
		p.ready = true
		p.journal.log.WithField("subnet_file", p.path).Info("ready")
		if p.onReady != nil {
			p.onReady()
		}
	}
}

// statusFile tells the CNI plugin whether this node can carry what a new pod sends. It is the plugin's STATUS: what
// is wrong with peers, or with the store, is no reason.
//
// Before the first subnet file of this run, what an earlier run wrote stays, except for where pods wait for the rules
// of network policies: a runtime starts pods as soon as there is a subnet file, also one of an earlier run.
func (p *publisher) statusFile(wake *alarm, s subnetfile.Status) {
	if p.content == "" && !p.ready {
		switch before, err := subnetfile.ReadStatus(p.path); {
		case err == nil && before.PolicySocket == s.PolicySocket:
			p.status = before
			return
		case err == nil:
			before.PolicySocket = s.PolicySocket
			s = before
		case s.PolicySocket == "":
			return // it is damaged: the first status of this run replaces it
		}
	}
	if s == p.status || !p.state.due(wake) {
		return
	}
	err := subnetfile.WriteStatus(p.path, s)
	if p.state.written(wake, err); err != nil {
		p.journal.problem(topicStatusFile, errno.Written(subnetfile.StatusPath(p.path), err))
		return
	}
	p.journal.resolved(topicStatusFile)
	p.status = s
}

// check looks whether another process changed or removed the files, and has them written again. cause is what it
// found about the subnet file: "missing", "changed" or nothing.
func (p *publisher) check(now time.Time) (cause string) {
	if p.content != "" {
		switch data, err := os.ReadFile(p.path); {
		case errors.Is(err, fs.ErrNotExist):
			cause = "missing"
		case err != nil || string(data) != p.content:
			cause = "changed"
		}
	}
	if cause != "" {
		p.content, p.file.repair = "", true
		p.journal.fileRepaired(p.path, cause, now)
	}
	if s, err := subnetfile.ReadStatus(p.path); err != nil || s != p.status {
		p.state.repair = p.status != subnetfile.Status{}
		p.status = subnetfile.Status{} // no status is empty, so the next one is written
	}
	return cause
}

// watchFiles calls changed whenever another process may have changed one of the files, until ctx ends. Where they
// cannot be watched, it calls every so often.
func watchFiles(ctx context.Context, log logrus.FieldLogger, every time.Duration, changed func(), paths ...string) {
	var logged seldom
	for ctx.Err() == nil {
		if err := filewatch.Watch(ctx, changed, paths...); err != nil {
			if logged.due(time.Now()) {
				log.WithError(err).WithField("every", every.String()).Warn("cannot watch the files that this node " +
					"writes (out of inotify instances? see fs.inotify.max_user_instances); checking them less often")
			}
			sleep(ctx, every)
		}
	}
}

// pluginStatus is what the CNI plugin reads. outOfSync says that the node's own part of the overlay has been out of
// sync for a while, leased that the node has a lease.
func pluginStatus(outOfSync, leased bool) subnetfile.Status {
	switch {
	case outOfSync:
		return subnetfile.Status{
			Limited: true, Reason: "the overlay device or a required kernel setting is out of sync: see selvaged " +
				"status",
		}
	case !leased:
		return subnetfile.Status{Reason: "this node has no lease: see selvaged status"}
	default:
		return subnetfile.Status{Usable: true}
	}
}

// holdSubnetFile keeps other daemons from writing the same subnet file. It may be impossible, for instance on a file
// system without locks; then nothing is held.
func holdSubnetFile(path, network string) (*heldFile, error) {
	lock, err := holdFile(LockPath(path), network)
	if held, is := errors.AsType[*heldError](err); is {
		return nil, fmt.Errorf("subnet file %s: %w writes it; --subnet-file names another one", path, held)
	}
	if err != nil {
		return nil, nil // writing the subnet file says why
	}
	return lock, nil
}

// previousSubnets reads from its subnet file which subnets an earlier run had.
func previousSubnets(path string, log logrus.FieldLogger) (subnets [2]netip.Prefix) {
	f, err := subnetfile.Read(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.WithError(err).Warn("ignoring the subnet file of an earlier run; it will be replaced")
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
