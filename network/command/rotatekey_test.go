package command

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/selvage-net/selvage/network/node/status"
)

// TestRotationLines: the stage of a change of keys, and what it waits for.
func TestRotationLines(t *testing.T) {
	waiting := []status.Waiting{{Key: "10.5.29.0-24", Node: "node3", Why: "it is slow"}, {Key: "10.5.30.0-24", Why: "so is it"}}
	for name, tt := range map[string]struct {
		rotation *status.Rotation
		want     []string
	}{
		"none":    {nil, nil},
		"a peer":  {&status.Rotation{Peers: 2}, []string{"the keys of 2 peers change"}},
		"unknown": {&status.Rotation{Stage: "new"}, []string{"this node's key changes: new"}},
		"waiting": {&status.Rotation{Stage: "offered", Waiting: waiting, More: 5}, []string{
			"this node's key changes: packets move to second devices, with the new key", "waiting for node3: it is slow",
			"waiting for 10.5.30.0-24: so is it", "waiting for 5 more",
		}},
	} {
		if got := rotationLines(tt.rotation); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestRotationEnd: a change has succeeded if a device has the new key.
func TestRotationEnd(t *testing.T) {
	b := status.Backend{Devices: []status.Device{{Name: "flannel-wg", Settings: []status.Setting{{Name: "Key", Value: "new"}}}}}
	var out bytes.Buffer
	if err := rotationEnd(&out, b, "new"); err != nil || out.String() != "the key has been changed\n" {
		t.Errorf("%q, %v", &out, err)
	}
	if err := rotationEnd(&out, b, "other"); !errors.Is(err, Exit{ExitDegraded}) {
		t.Errorf("%v, want exit code %d", err, ExitDegraded)
	}
}
