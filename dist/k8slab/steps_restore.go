package k8slab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/dist/lab/etcdserver"
)

// bumped are the flags of etcdutl that etcd recommends for Kubernetes: with them, no revision is used twice.
var bumped = []string{"--bump-revision=1000000", "--mark-compacted"}

// backup is the file of the backup of the API server's etcd.
func (c *Cluster) backup() string { return c.file("backup.db") }

// backUp saves the store of the API server as it is.
func (c *Cluster) backUp(ctx context.Context) (err error) {
	snapshot, err := c.lab.Etcd().Client().Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("back etcd up: %w", err)
	}
	defer snapshot.Close()
	file, err := os.Create(c.backup())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := io.Copy(file, snapshot); err != nil {
		return fmt.Errorf("back etcd up: %w", err)
	}
	return nil
}

// restored restores the API server's etcd from the backup, as its administrators do it, and starts the control plane
// and the kubelets again. The backup is from before a Node was registered again.
func restored(flags ...string) func(context.Context, *suite) ([]string, error) {
	return func(ctx context.Context, s *suite) ([]string, error) {
		before, err := s.revision(ctx)
		if err != nil {
			return nil, err
		}
		// All of them at once: whatever is written to a store that is replaced is lost.
		if err := s.stop(ctx, controllers, scheduler); err != nil {
			return nil, err
		}
		s.kill(apiServer)
		err = s.lab.Etcd().Member(0, func(member *etcdserver.Server) error {
			return s.restore(ctx, member, flags)
		})
		if err != nil {
			return nil, err
		}
		if err := errors.Join(s.startServer(ctx), s.startControllers()); err != nil {
			return nil, err
		}
		after, err := s.revision(ctx)
		if err != nil {
			return nil, err
		}
		// etcd's documentation has everything restarted that may know more than the store: "Restoring a cluster".
		for _, n := range s.nodes {
			if err := n.restartKubelet(ctx); err != nil {
				return nil, err
			}
		}
		for _, n := range s.nodes {
			if err := s.heard(ctx, n); err != nil {
				return nil, err
			}
		}
		seen, err := s.followed(ctx)
		return []string{fmt.Sprintf("etcd's revision was %d, and is %d", before, after), seen}, err
	}
}

// restore replaces a member's data by the backup.
func (c *Cluster) restore(ctx context.Context, member *etcdserver.Server, flags []string) error {
	list, err := c.lab.Etcd().Client().MemberList(ctx)
	if err != nil {
		return err
	}
	self := list.Members[0]
	peer := strings.Join(self.PeerURLs, ",")
	if err := member.Stop(); err != nil {
		return err
	}
	if err := os.RemoveAll(member.DataDir()); err != nil {
		return err
	}
	args := append([]string{
		"snapshot", "restore", c.backup(), "--data-dir=" + member.DataDir(), "--name=" + self.Name,
		"--initial-cluster=" + self.Name + "=" + peer, "--initial-advertise-peer-urls=" + peer,
	}, flags...)
	out, err := exec.CommandContext(ctx, filepath.Join(c.options.Bin, "etcdutl"), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("etcdutl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return member.Restart(ctx)
}

// revision is that of etcd.
func (c *Cluster) revision(ctx context.Context) (int64, error) {
	answer, err := c.lab.Etcd().Client().Get(ctx, "x")
	if err != nil {
		return 0, fmt.Errorf("ask etcd for its revision: %w", err)
	}
	return answer.Header.Revision, nil
}
