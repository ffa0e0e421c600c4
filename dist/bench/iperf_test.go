package bench

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestParseIperf reads what iperf3 3.12 printed: of UDP, most of which was lost, what arrived counts.
func TestParseIperf(t *testing.T) {
	for file, want := range map[string]received{
		"iperf3-tcp.json": {540016640, 4031832878.2106676},
		"iperf3-udp.json": {47123100, 343980553.8218967},
	} {
		out, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseIperf(out); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", file, got, err, want)
		}
	}
	refused, err := os.ReadFile("testdata/iperf3-error.json")
	if err != nil {
		t.Fatal(err)
	}
	for out, want := range map[string]string{
		string(refused): "unable to connect to server: Connection refused",
		`{"end":{}}`:    "nothing arrived",
		`{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}`: "nothing arrived",
		"iperf3: no": `invalid character 'i' looking for beginning of value: it printed "iperf3: no"`,
	} {
		if _, err := parseIperf([]byte(out)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", out, err, want)
		}
	}
}

func TestParseMachineCPU(t *testing.T) {
	const stat = "cpu  100 20 300 40000 500 6 7 8000 90 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
	if got, err := parseMachineCPU(stat); err != nil || got != 4330*time.Millisecond {
		t.Errorf("%s, %v, want 4.33s", got, err)
	}
	for _, stat := range []string{"", "cpu  1 2 3\n", "intr 1 2 3 4 5 6 7 8\n", "cpu  1 2 x 4 5 6 7 8\n"} {
		if _, err := parseMachineCPU(stat); err == nil {
			t.Errorf("%q was taken", stat)
		}
	}
	if now, err := machineCPU(); err != nil || now <= 0 {
		t.Errorf("this machine: %s, %v", now, err)
	}
}

// TestLoopback measures in one namespace, with the real iperf3.
func TestLoopback(t *testing.T) {
	here := func(fn func() error) error { return fn() }
	for _, address := range []string{"127.0.0.1", "::1"} {
		e := end{here, netip.MustParseAddr(address)}
		w := way{name: address, from: e, to: e}
		for _, protocol := range []string{"tcp", "udp"} {
			took, err := w.latency(protocol)
			if err != nil {
				t.Fatal(err)
			}
			if len(took) != roundTrips || quantile(0, took) <= 0 {
				t.Errorf("%s by %s: %d round trips, the fastest %g µs", address, protocol, len(took), quantile(0, took))
			}
			got, err := w.iperf(t.Context(), load{protocol, 2})
			if err != nil {
				t.Fatal(err)
			}
			if got.Bits <= 0 || got.CPU <= 0 {
				t.Errorf("%s by %s: %+v", address, protocol, got)
			}
		}
	}
	nowhere := way{
		name: "nowhere", from: end{here, netip.MustParseAddr("127.0.0.1")}, to: end{here, netip.MustParseAddr("192.0.2.1")},
	}
	if _, err := nowhere.latency("tcp"); err == nil {
		t.Error("a socket was bound to an address that is not there")
	}
}
