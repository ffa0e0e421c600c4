package cniplugin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	records "github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// While the daemon enforces network policies, it learns of a pod's address from the API server only after the pod has
// started. So ADD reports the pod to it, and returns when the rules for the pod are in the kernel, before the pod can
// send its first packet. Without a daemon that does this nothing is different, except that ADD looks for the status
// file.

const (
	defaultPolicyWait = 2 * time.Second
	answerMargin      = 3 * time.Second        // beyond policyWait, for a busy daemon to answer that the time ran out
	longestPause      = 320 * time.Millisecond // between two attempts to reach the daemon; the first is lookEvery
	detachTimeout     = time.Second            // for the daemon to take in a report that is not answered
)

// podOf returns the pod that the runtime names in CNI_ARGS (KEY=VALUE, separated by ";"), as runtimes of Kubernetes do;
// it is zero for other containers.
func podOf(args string) (p records.Pod) {
	for assignment := range strings.SplitSeq(args, ";") {
		switch key, value, _ := strings.Cut(assignment, "="); key {
		case "K8S_POD_NAMESPACE":
			p.Namespace = value
		case "K8S_POD_NAME":
			p.Name = value
		case "K8S_POD_UID":
			p.UID = value
		}
	}
	if p.Namespace == "" || p.Name == "" {
		return records.Pod{}
	}
	return p
}

// subject reports whether network policies apply to the interface: it is a pod's, and the one with the addresses that
// the pod has in the API. That is eth0 in all runtimes; what Multus adds to it on the same network has none there.
func (c *call) subject(p records.Pod) bool {
	const first = "eth0"
	return p != records.Pod{} &&
		(c.a.ifName == first || !c.store.has(attachment{c.a.network, c.a.containerID, first}))
}

// awaitPolicies returns when the daemon has the rules for the pod that ADD made in force, or has isolated it until they
// are. It tries again while the daemon cannot be reached: it may be starting.
func (c *call) awaitPolicies(ctx context.Context) error {
	if !c.subject(c.made.Pod) {
		return nil
	}
	wait := c.conf.policyWait
	until := time.Now().Add(wait)
	ctx, cancel := context.WithTimeout(ctx, wait+answerMargin)
	defer cancel()
	for pause := lookEvery; ; pause = min(2*pause, longestPause) {
		again, err := c.reportAttached(ctx, time.Until(until))
		if err == nil || wait == 0 {
			return nil
		}
		if again && time.Until(until) > 0 && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(min(pause, time.Until(until))):
			}
			continue
		}
		pod := c.made.Pod
		return fail(types.ErrTryAgainLater,
			fmt.Sprintf("the network policies of pod %s/%s are not in force", pod.Namespace, pod.Name),
			fmt.Errorf("%w (policyWait is %v)", err, wait))
	}
}

// reportAttached reports the pod once, if the daemon enforces network policies. again reports whether the same may
// succeed later.
func (c *call) reportAttached(ctx context.Context, left time.Duration) (again bool, err error) {
	s, err := subnetfile.ReadStatus(c.conf.SubnetFile)
	if err != nil {
		return true, err // the daemon repairs it
	}
	if s.PolicySocket == "" {
		return false, nil
	}
	body, err := c.made.Marshal()
	if err != nil {
		return false, err
	}
	query := records.AttachQuery{Failure: c.conf.PolicyFailure}
	if c.conf.policyWait > 0 {
		query.Wait = max(left, time.Millisecond) // 0: the plugin does not wait
	}
	r := request{s.PolicySocket, records.PathAttach + "?" + query.String(), body}
	if query.Wait == 0 {
		return false, r.send(ctx)
	}
	a, err := r.do(ctx)
	if err != nil {
		return true, err
	}
	switch a.status {
	case statusNoContent, statusNotFound: // in force; no policies: the status file is about to be replaced
		return false, nil
	case statusAccepted:
		fmt.Fprintln(c.Stderr, "selvage: the pod is isolated until its network policies are in force")
		return false, nil
	}
	return a.status == statusUnavailable, fmt.Errorf("selvaged at %s answers %d: %s", s.PolicySocket, a.status, a.text)
}

// reportDetached reports to a daemon that enforces network policies that the pod has lost its interface. It does not
// wait, and a failure is not reported: the daemon learns from the API, too, that the pod has ended.
func (c *call) reportDetached(ctx context.Context) {
	pod := podOf(c.getenv("CNI_ARGS"))
	if !c.subject(pod) {
		return
	}
	s, err := subnetfile.ReadStatus(c.conf.SubnetFile)
	if err != nil || s.PolicySocket == "" {
		return
	}
	body, err := records.Record{Key: c.a.key(), Pod: pod}.Marshal()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachTimeout)
	defer cancel()
	_ = request{s.PolicySocket, records.PathDetach, body}.send(ctx)
}
