package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/filter"
)

// TestSayRules logs what is new in a status, once, and its end.
func TestSayRules(t *testing.T) {
	var out bytes.Buffer
	log := logrus.New()
	log.Out = &out
	log.Formatter = &logrus.TextFormatter{DisableTimestamp: true, DisableQuote: true}
	r := rulesRun{log: log}
	here := func(change func(*filter.Status)) filter.Status {
		s := filter.Status{Mode: filter.NFTables, Why: "supported"}
		change(&s)
		return s
	}
	for _, step := range []struct {
		what   string
		status filter.Status
		want   []string // lines
	}{
		{"the mode", here(func(*filter.Status) {}), []string{"level=info msg=packet filter: nftables (supported)"}},
		{"the same", here(func(*filter.Status) {}), nil},
		{"another reason", here(func(s *filter.Status) { s.Why = "it is wished" }), []string{"level=info msg=packet filter: nftables (it is wished)"}},
		{"two who drop", here(func(s *filter.Status) { s.Drops = []string{"a drops", "b drops"} }),
			[]string{"level=info msg=packet filter: nftables (supported)", "level=warning msg=packet filter: a drops", "level=warning msg=packet filter: b drops"}},
		{"one of them, and another", here(func(s *filter.Status) { s.Drops = []string{"b drops", "c drops"} }), []string{"level=warning msg=packet filter: c drops"}},
		{"nobody any more", here(func(*filter.Status) {}), []string{"level=info msg=packet filter: all is well again; it was: b drops; c drops"}},
		{"another mode than wished", filter.Status{Mode: filter.IPTables, Why: "it cannot be used", Unmet: errors.New("no kernel for it")},
			[]string{"level=info msg=packet filter: iptables (it cannot be used)", "level=error msg=packet filter: no kernel for it"}},
		{"leftovers, and a blindness", filter.Status{Mode: filter.IPTables, Why: "it cannot be used", Unmet: errors.New("no kernel for it"), Leftover: []string{"x is left"}, Unseen: errors.New("no right to see")},
			[]string{"level=warning msg=packet filter: no right to see", "level=warning msg=packet filter: x is left"}},
	} {
		out.Reset()
		r.say(step.status)
		want := strings.Join(step.want, "\n")
		if want != "" {
			want += "\n"
		}
		if out.String() != want {
			t.Errorf("%s: logged\n%s\nwant\n%s", step.what, out.String(), want)
		}
	}
}
