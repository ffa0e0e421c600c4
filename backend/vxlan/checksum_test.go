package vxlan

import (
	"testing"

	"github.com/selvage-net/selvage/network"
)

func TestTxChecksum(t *testing.T) {
	for _, tt := range []struct {
		setting, release string
		want             network.Offload
	}{
		{"auto", "3.10.0-1160.el7.x86_64", network.Off},
		{"auto", "4.19.0-27-amd64", network.Off},
		{"auto", "5.4.0-42-generic", network.Off},
		{"auto", "5.6.19", network.Off},
		{"auto", "5.7.0", network.AsItIs},
		{"auto", "5.7-rc1", network.AsItIs},
		{"auto", "5.10.0-28-cloud-amd64", network.AsItIs},
		{"auto", "6.1.0-18-amd64", network.AsItIs},
		{"auto", "10.0", network.AsItIs},
		{"auto", "", network.AsItIs},
		{"auto", "unknown", network.AsItIs},
		{"on", "5.4.0", network.On},
		{"off", "6.18.0", network.Off},
	} {
		got, err := TxChecksum(tt.setting, tt.release)
		if err != nil || got != tt.want {
			t.Errorf("%s on %q: %v, %v, want %v", tt.setting, tt.release, got, err, tt.want)
		}
	}
	for _, setting := range []string{"", "no", "Auto"} {
		if _, err := TxChecksum(setting, "6.1"); err == nil {
			t.Errorf("%q was taken", setting)
		}
	}
}
