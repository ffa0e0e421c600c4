package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestSenders looks up those of whom nothing can be known, and bounds how often one is looked up.
func TestSenders(t *testing.T) {
	ended := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	var s senders
	for port, want := range map[uint32]string{
		0: "", uint32(os.Getpid()): "", 1<<32 - 5000: "",
		uint32(ended.Process.Pid): fmt.Sprintf("pid %d, gone or in a container", ended.Process.Pid),
	} {
		if got := s.of(port); got != want {
			t.Errorf("port %d: %q, want %q", port, got, want)
		}
	}
	looked := 0
	for i := range uint32(1000) {
		if who := s.of(3_000_000 + i); strings.Contains(who, ",") {
			looked++
		}
	}
	if looked > 2*maxLookups { // a second may have passed
		t.Errorf("%d looked up", looked)
	}
}
