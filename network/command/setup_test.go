package command

import (
	"io"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/network/node"
	"github.com/selvage-net/selvage/subnet"
)

// TestNewConfig: the network config of the flags, or of the answer, is valid.
func TestNewConfig(t *testing.T) {
	for _, tt := range []struct {
		ipv4, ipv6, answer string
		want               string // an error if it is no object
	}{
		{"10.5.0.0/16", "", "", `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`},
		{"10.5.0.0/16", "fd00:5::/56", "",
			`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`},
		{"", "fd00:5::/56", "",
			`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","Backend":{"Type":"vxlan"}}`},
		{"", "", "\n", `{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`},
		{"", "", " 10.7.0.0/16 \n", `{"Network":"10.7.0.0/16","Backend":{"Type":"vxlan"}}`},
		{"", "", "10.7.0.0/16", `{"Network":"10.7.0.0/16","Backend":{"Type":"vxlan"}}`},
		{"", "", "", "no answer: EOF"},
	} {
		var asked strings.Builder
		o := setup{networks: [2]string{tt.ipv4, tt.ipv6}, backend: "vxlan", in: strings.NewReader(tt.answer), out: &asked}
		got, err := o.newConfig()
		if err != nil {
			got = []byte(err.Error())
		} else if _, err := node.ParseConfig(subnet.StoreEtcd, got); err != nil {
			t.Errorf("%+v: %s is invalid: %v", tt, got, err)
		}
		if string(got) != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
		if asks := strings.Contains(asked.String(), "[10.244.0.0/16]: "); asks != (tt.ipv4+tt.ipv6 == "") {
			t.Errorf("%+v: asked %q", tt, asked.String())
		}
	}
}

// TestFits: a network config that is there is kept, unless the flags ask for another one.
func TestFits(t *testing.T) {
	const dual = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/56"}`
	for _, tt := range []struct{ config, ipv4, ipv6, want string }{
		{dual, "", "", ""},
		{dual, "10.5.0.0/16", "fd00:5::/56", ""},
		{dual, "10.5.0.1/16", "", ""},
		{dual, "10.5.0.0/17", "", "without 10.5.0.0/17"},
		{dual, "", "fd00:6::/56", "without fd00:6::/56"},
		{dual, "10.5.0.0", "", `"10.5.0.0" is no network`},
		{`{"Network":"10.5.0.0/16"}`, "", "fd00:5::/56", "without fd00:5::/56"},
		{`{"Network":"x"}`, "", "", "mend it with selvaged config set"},
	} {
		o := setup{networks: [2]string{tt.ipv4, tt.ipv6}, out: io.Discard}
		err := o.fits([]byte(tt.config))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
