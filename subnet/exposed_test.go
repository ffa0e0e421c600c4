package subnet

import (
	"fmt"
	"testing"
)

// TestSpan: the prefixes of a range hold all of its subnets, and nothing else, without overlap.
func TestSpan(t *testing.T) {
	for config, want := range map[string]string{
		`{"Network":"10.5.0.0/16"}`: "[10.5.1.0/24 10.5.2.0/23 10.5.4.0/22 10.5.8.0/21 10.5.16.0/20 10.5.32.0/19 " +
			"10.5.64.0/18 10.5.128.0/17]",
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0"}`:                                                  "[10.5.0.0/16]",
		`{"Network":"10.0.0.0/8","SubnetMin":"10.5.7.0","SubnetMax":"10.5.9.0"}`:                            "[10.5.7.0/24 10.5.8.0/23]",
		`{"Network":"10.5.0.0/16","SubnetMin":"10.5.255.0"}`:                                                "[10.5.255.0/24]",
		`{"Network":"255.255.0.0/16","SubnetMin":"255.255.254.0"}`:                                          "[255.255.254.0/23]",
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/56","IPv6SubnetMax":"fd00:5:0:2::"}`: "[fd00:5:0:1::/64 fd00:5:0:2::/64]",
	} {
		c, err := ParseConfig([]byte(config))
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", config, err)
			}
			continue
		}
		got := c.Ranges[IPv4].Span()
		got = append(got, c.Ranges[IPv6].Span()...)
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", config, got, want)
		}
	}
	c, err := ParseAllocatedConfig([]byte(`{"Network":"10.42.0.0/16"}`))
	if got := fmt.Sprint(c.Ranges[IPv4].Span()); err != nil || got != "[10.42.0.0/16]" {
		t.Errorf("%s, %v, want the whole network", got, err)
	}
}
