package node

import (
	"os"
	"path/filepath"
	"testing"
)

func TestServicesOfIPVS(t *testing.T) {
	const head = `IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
`
	for name, tt := range map[string]struct {
		text string
		want bool
	}{
		"empty": {"", false},
		"none":  {head, false},
		"TCP":   {head + "TCP  0A600001:01BB rr \n  -> C0000207:192B      Masq    1      0          0         \n", true},
		"IPv6":  {head + "UDP  [fd00:0010:0096:0000:0000:0000:0000:000a]:0035 rr \n", true},
		"mark":  {head + "FWM  00000001 rr \n", true},
	} {
		path := filepath.Join(t.TempDir(), "ip_vs")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := hasIPVS(path); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
	if hasIPVS(filepath.Join(t.TempDir(), "absent")) {
		t.Error("a file that is absent has services")
	}
}
