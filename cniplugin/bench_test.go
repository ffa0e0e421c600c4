package cniplugin

import (
	"context"
	"io"
	"os"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/node/api"
	records "github.com/selvage-net/selvage/subnet/attachment"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

// BenchmarkRender is what the plugin does by itself in an ADD, beyond starting and calling the delegate.
func BenchmarkRender(b *testing.B) {
	f := testFile()
	n := netConf{Name: "cbr0", Delegate: object{"hairpinMode": []byte("true"), "isDefaultGateway": []byte("true")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := render(n, f); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReport is what an ADD of a pod has in addition while the daemon enforces network policies, without the time that
// it takes to put the rules in force.
func BenchmarkReport(b *testing.B) {
	dir := b.TempDir()
	log := logrus.New()
	log.SetOutput(io.Discard)
	s, err := api.Listen(api.Options{Socket: dir + "/s.sock", Log: log, Attacher: atOnce{}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx, nil) }()
	defer func() { cancel(); <-done }()
	c := call{Plugin: &Plugin{Stderr: os.Stderr}, a: attachment{"cbr0", "c1", "eth0"},
		conf: netConf{SubnetFile: dir + "/subnet.env", policyWait: defaultPolicyWait, PolicyFailure: records.FailureFail}}
	if err := subnetfile.WriteStatus(c.conf.SubnetFile, subnetfile.Status{Usable: true, PolicySocket: dir + "/s.sock"}); err != nil {
		b.Fatal(err)
	}
	c.made = records.Record{Key: c.a.key(), Delegate: "bridge", Config: []byte("{}"), Result: []byte(testResult), Pod: podOf(podArgs)}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.awaitPolicies(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// atOnce has the rules of any pod in force at once.
type atOnce struct{ api.Attacher }

func (atOnce) Attach(context.Context, api.Attachment) error { return nil }

// BenchmarkNoPolicies is what an ADD of a pod has in addition while the daemon enforces no network policies.
func BenchmarkNoPolicies(b *testing.B) {
	c := call{Plugin: &Plugin{}, conf: netConf{SubnetFile: b.TempDir() + "/subnet.env", policyWait: defaultPolicyWait}, a: attachment{"cbr0", "c1", "eth0"}}
	c.made.Pod = podOf(podArgs)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.awaitPolicies(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
