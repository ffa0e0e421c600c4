package node

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/fastpath"
	"github.com/selvage-net/selvage/network/kernel"
	"github.com/selvage-net/selvage/network/node/status"
)

// startingFor is how long the fast path may take to be set up: on a busy machine, to load its programs takes seconds.
const startingFor = 10 * time.Second

// topicFastPath is the topic of problems with the fast path.
const topicFastPath = "fast path"

// fastPathStatus describes the fast path; nil: it is off.
func (n *node) fastPathStatus() *status.FastPath {
	f := &n.fast
	if !n.usesFastPath() {
		return nil
	}
	s := &status.FastPath{
		Mode: string(n.FastPath), InUse: f.why.code == "", Code: f.why.code, Why: status.Text(f.why.text),
		Since: f.since, Pinned: f.pinned, Flushes: f.flushes.Load(), Peers: n.tables.FastPeers.Counts().Present,
	}
	for _, link := range slices.Sorted(maps.Keys(f.roles)) {
		if f.roles[link] != fastpath.Port {
			continue
		}
		if o, is := f.obstacles[link]; is {
			s.Slow = append(s.Slow, status.SlowPort{Port: link, Code: obstacleReason(o), Why: status.Text(
				"fast packets would pass by " + obstacleText(o))})
		} else if s.InUse {
			switch attached, failed := n.attached(link); {
			case attached:
				s.Ports++
			case failed:
				s.Slow = append(s.Slow, status.SlowPort{Port: link, Code: status.FastPathFailed, Why: "a program " +
					"cannot be attached; retrying"})
			}
		}
	}
	if p := f.path.Load(); p != nil {
		if counters, err := p.Counters(); err == nil {
			s.Packets = map[string]uint64{}
			for r, count := range counters {
				s.Packets[fastpath.Reason(r).String()] = count
			}
		}
	}
	return s
}

// attached reports whether all programs of a pod's port are attached, or whether that has failed.
func (n *node) attached(port string) (all, failed bool) {
	all = true
	for _, program := range fastpath.Port.Programs() {
		key := network.ProgramKey{Link: port, Program: string(program)}
		c := n.tables.Programs.Get(key)
		all = all && c.Present && c.Have.Current
		failed = failed || n.tables.Programs.HasFailed(key)
	}
	return all, failed
}

// obstacleReason returns the reason for an obstacle to the fast path.
func obstacleReason(o kernel.Obstacle) status.Reason {
	switch o {
	case kernel.QueueObstacle:
		return status.FastPathQueue
	case kernel.ProgramObstacle:
		return status.FastPathProgram
	default:
		return status.FastPathChain
	}
}

func obstacleText(o kernel.Obstacle) string {
	switch o {
	case kernel.QueueObstacle:
		return "a queueing discipline or filter of tc"
	case kernel.ProgramObstacle:
		return "a BPF program of another process"
	default:
		return "a chain of nf_tables"
	}
}

// fastPathProblems lists what is wrong with the fast path.
func (n *node) fastPathProblems(now time.Time) (all []status.Problem) {
	f := &n.fast
	if p := f.left.Load(); p != nil && now.Sub(p.since) > pendingFor {
		all = append(all, status.Problem{
			Topic: topicFastPath, Code: status.FastPathNotRemoved, Since: p.since, Warning: true,
			Text: status.Text(fmt.Sprintf("what an earlier run has left cannot be removed: %v", p.err)),
		})
	}
	if n.FastPath != FastPathOn || f.since.IsZero() {
		return all
	}
	lasted := pendingFor
	if f.why.code == status.FastPathStarting {
		lasted = startingFor
	}
	switch {
	case f.why.code != "" && now.Sub(f.since) > lasted:
		all = append(all, status.Problem{Topic: topicFastPath, Code: f.why.code, Since: f.since,
			Text: status.Text("not in use, so packets take the slow path: " + f.why.text)})
	case f.why.code == "" && !f.pinned:
		all = append(all, status.Problem{Topic: topicFastPath, Code: status.FastPathNotPinned, Since: f.since,
			Warning: true, Text: "it ends with the daemon, because there is no BPF file system at " +
				status.Text(n.BPFFS) + " (mount -t bpf bpf /sys/fs/bpf)"})
	}
	return all
}
