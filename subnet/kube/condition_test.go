package kube

import (
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet/kube/apiserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// TestNetworkUp: the time of the transition stays if the status does.
func TestNetworkUp(t *testing.T) {
	now, before := time.Unix(2_000_000_000, 5), time.Unix(1_900_000_000, 0)
	text := func(transition string) string {
		return `{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","reason":"FlannelIsUp",` +
			`"message":"Flannel is running on this node","lastHeartbeatTime":"2033-05-18T03:33:20Z",` +
			`"lastTransitionTime":"` + transition + `"}]}}`
	}
	for name, x := range map[string]struct {
		have *apiserver.Condition
		want string
	}{
		"none":         {nil, text("2033-05-18T03:33:20Z")},
		"unavailable":  {&apiserver.Condition{Status: "True", Reason: "NoRouteCreated", Transition: before}, text("2033-05-18T03:33:20Z")},
		"another's":    {&apiserver.Condition{Status: "False", Reason: "RouteCreated", Transition: before}, text("2030-03-17T17:46:40Z")},
		"without time": {&apiserver.Condition{Status: "False", Reason: "x"}, text("2033-05-18T03:33:20Z")},
		"said already": {&apiserver.Condition{Status: "False", Reason: "FlannelIsUp", Transition: before}, ""},
	} {
		if got := string(networkUp(x.have, now)); got != x.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, x.want)
		}
	}
}

func TestAnnounceNetwork(t *testing.T) {
	f := standIn(t, true)
	cloud := kubetest.Condition{
		Type: conditionType, Status: "True", Reason: "NoRouteCreated", LastHeartbeatTime: time.Unix(1, 0),
		LastTransitionTime: time.Unix(1, 0),
	}
	ready := kubetest.Condition{Type: "Ready", Status: "True", LastHeartbeatTime: time.Unix(1, 0), LastTransitionTime: time.Unix(1, 0)}
	_, err := f.admin.CreateNode(t.Context(), kubetest.Node{Name: "one", Conditions: []kubetest.Condition{ready, cloud}})
	if err != nil {
		t.Fatal(err)
	}
	look := func(want string) string {
		t.Helper()
		o, err := f.admin.Node(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		if len(o.Status.Conditions) != 2 {
			t.Errorf("the conditions are %+v", o.Status.Conditions)
		}
		for _, c := range o.Status.Conditions {
			if c.Type == conditionType && c.Status != want {
				t.Errorf("it is %+v", c)
			}
		}
		return o.Metadata.ResourceVersion
	}
	if err := f.open(t, "one").AnnounceNetwork(t.Context()); err != nil {
		t.Error(err)
	}
	look("True") // it is off
	s := f.openWith(t, Options{Node: "one", NetworkCondition: true})
	version := ""
	for range 2 {
		if err := s.AnnounceNetwork(t.Context()); err != nil {
			t.Error(err)
		}
		if now := look("False"); version == "" {
			version = now
		} else if version != now {
			t.Error("it was written twice")
		}
	}
	if err := f.openWith(t, Options{Node: "two", NetworkCondition: true}).AnnounceNetwork(t.Context()); err == nil {
		t.Error("no error for a Node that does not exist")
	}
}
