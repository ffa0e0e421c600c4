package main

import (
	"io"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/node/status"
)

// TestPolicyFlags: which flags enforce network policies, and which are refused.
func TestPolicyFlags(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	for _, x := range []struct {
		args       []string
		kubernetes bool
		bad        bool
		off        status.Reason
	}{
		{nil, true, false, status.PolicyDisabled},
		{[]string{"--network-policy=off", "--policy-dir=/d"}, true, false, status.PolicyDisabled},
		{[]string{"--network-policy=auto"}, false, false, status.PolicyDisabled}, // nothing to take policies from
		{[]string{"--network-policy=on"}, true, false, ""},
		{[]string{"--network-policy=on", "--policy-dir=/d"}, false, false, ""},
		{[]string{"--network-policy=on"}, false, true, ""},
		{[]string{"--network-policy=true"}, true, true, ""},
	} {
		f, _, err := parsedFlags(x.args, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.store.Kubernetes = x.kubernetes
		if err := f.policy.check(x.kubernetes); (err != nil) != x.bad {
			t.Errorf("%q, Kubernetes %t: %v", x.args, x.kubernetes, err)
		}
		if off := f.policiesOff(log); !x.bad && off != x.off {
			t.Errorf("%q, Kubernetes %t: %q, want %q", x.args, x.kubernetes, off, x.off)
		}
	}
}
