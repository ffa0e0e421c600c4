package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/selvage-net/selvage/subnet/kube/apiserver"
)

// The Node's condition NetworkUnavailable, as flannel writes it. A cloud's controller sets it to True on a new Node; as
// long as it is, the node lifecycle controller keeps pods away by the taint node.kubernetes.io/network-unavailable.
const (
	conditionType    = "NetworkUnavailable"
	conditionStatus  = "False"
	conditionReason  = "FlannelIsUp"
	conditionMessage = "Flannel is running on this node"
)

// condition is one in a patch. Times are in RFC 3339, in seconds.
type condition struct {
	Type       string `json:"type"`
	Status     string `json:"status"`
	Reason     string `json:"reason"`
	Message    string `json:"message"`
	Heartbeat  string `json:"lastHeartbeatTime"`
	Transition string `json:"lastTransitionTime"`
}

// AnnounceNetwork implements [subnet.NetworkAnnouncer].
func (s *Store) AnnounceNetwork(ctx context.Context) error {
	if !s.opts.NetworkCondition {
		return nil
	}
	name, err := s.nodeName(ctx)
	if err != nil {
		return err
	}
	node, err := s.readNode(ctx, name)
	if err == nil {
		patch := networkUp(node.NetworkUnavailable, time.Now())
		if patch == nil {
			return nil
		}
		_, err = s.client.PatchNodeStatus(ctx, name, patch)
	}
	if err != nil {
		return fmt.Errorf("set the condition %s of Node %s: %w", conditionType, name, err)
	}
	return nil
}

// networkUp returns the patch that says that the network is up; nil if the condition says so already. The time of the
// transition stays if the status does.
func networkUp(have *apiserver.Condition, now time.Time) []byte {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	c := condition{conditionType, conditionStatus, conditionReason, conditionMessage, at(now), at(now)}
	if have != nil && have.Status == conditionStatus {
		if have.Reason == conditionReason {
			return nil
		}
		if !have.Transition.IsZero() {
			c.Transition = at(have.Transition)
		}
	}
	type status struct {
		Conditions []condition `json:"conditions"`
	}
	patch, _ := json.Marshal(struct { // texts alone
		Status status `json:"status"`
	}{status{[]condition{c}}})
	return patch
}
