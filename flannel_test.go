package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

// list is the type of flannel's --iface and --iface-regex: each adds one.
type list []string

func (l *list) String() string         { return "[" + strings.Join(*l, ",") + "]" }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// flannelsFlags is the command line of flannel 0.28.9 (main.go): the flags by their types, on Go's package flag.
func flannelsFlags() *flag.FlagSet {
	s := flag.NewFlagSet("flannel", flag.ContinueOnError)
	s.SetOutput(new(strings.Builder))
	for _, name := range []string{"etcd-endpoints", "etcd-prefix", "etcd-keyfile", "etcd-certfile", "etcd-cafile", "etcd-username",
		"etcd-password", "iface-can-reach", "subnet-file", "public-ip", "public-ipv6", "kube-api-url", "kube-annotation-prefix",
		"kubeconfig-file", "healthz-ip", "net-config-path", "vmodule", "log_backtrace_at"} {
		s.String(name, "", "")
	}
	for _, name := range []string{"ip-masq", "ip-masq-fully-random-disable", "kube-subnet-mgr", "version", "iptables-forward-rules",
		"ip-blackhole-route", "set-node-network-unavailable"} {
		s.Bool(name, false, "")
	}
	for _, name := range []string{"subnet-lease-renew-margin", "healthz-port", "iptables-resync", "v"} {
		s.Int(name, 0, "")
	}
	s.Var(new(list), "iface", "")
	s.Var(new(list), "iface-regex", "")
	return s
}

// flannels parses as flannel does: flags, and then the variables that are not empty, of flags that were not given. It
// returns the flags that were set, by name.
func flannels(args []string, environment map[string]string) (map[string]string, error) {
	s := flannelsFlags()
	if err := s.Parse(args); err != nil {
		return nil, err
	}
	given := map[string]bool{}
	s.Visit(func(f *flag.Flag) { given[f.Name] = true })
	s.VisitAll(func(f *flag.Flag) {
		value := environment["FLANNELD_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))]
		if value != "" && !given[f.Name] {
			_ = s.Set(f.Name, value) // flannel logs it and goes on
		}
	})
	set := map[string]string{}
	s.Visit(func(f *flag.Flag) { set[f.Name] = f.Value.String() })
	return set, nil
}

// forms are the rows of migration.md's table: input, and what it means here.
func forms(t *testing.T) (rows [][2]string) {
	t.Helper()
	page, err := os.ReadFile("Documentation/migration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## flannel's command line and variables\n")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z ]+) \\|").FindAllStringSubmatch(table, -1) {
		rows = append(rows, [2]string{m[1], m[2]})
	}
	if len(rows) < 50 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	return rows
}

// split returns the arguments and the variables of a row.
func split(form string) (args []string, environment map[string]string) {
	environment = map[string]string{}
	for _, word := range strings.Fields(form) {
		if name, value, ok := strings.Cut(word, "="); ok && name == strings.ToUpper(name) {
			environment[name] = value
			continue
		}
		args = append(args, word)
	}
	return args, environment
}

// TestFlannelsForms: each row of the table in migration.md is what selvaged does, and "same" is what flannel's own parser
// makes of it.
func TestFlannelsForms(t *testing.T) {
	for _, row := range forms(t) {
		form, here := row[0], row[1]
		args, environment := split(form)
		f, s, err := parsedFlags(args, environment)
		if err == nil && s.NArg() > 0 {
			err = fmt.Errorf("unknown command %q", s.Arg(0)) // as cobra says
		}
		if err == nil {
			log := logrus.New()
			err = f.finish(log)
		}
		if here == "refused" {
			if err == nil {
				t.Errorf("%s: accepted, and the table says refused", form)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v, and the table says %s", form, err, here)
			continue
		}
		ignored := len(f.ignored)+len(f.ignoredByStore) > 0
		if ignored != (here == "no effect") {
			t.Errorf("%s: without effect: %t, and the table says %s", form, ignored, here)
		}
		want, err := flannels(args, environment)
		if here != "same" {
			continue
		}
		if err != nil {
			t.Errorf("%s: the table says same, and flannel says %v", form, err)
			continue
		}
		for name, value := range want {
			got := strings.Trim(s.Lookup(name).Value.String(), "[]")
			if value = strings.Trim(value, "[]"); got != value {
				t.Errorf("%s: --%s is %q, and flannel's is %q", form, name, got, value)
			}
		}
		s.VisitAll(func(f *pflagFlag) {
			if _, there := want[f.Name]; f.Changed && !there {
				t.Errorf("%s: sets --%s, and flannel does not", form, f.Name)
			}
		})
	}
}

// TestEveryFlagOfFlannel: each of flannel's flags is one of the table's, and one that selvaged has.
func TestEveryFlagOfFlannel(t *testing.T) {
	var all []string
	for _, row := range forms(t) {
		all = append(all, row[0])
	}
	text := strings.Join(all, " ") + " "
	_, s, err := parsedFlags(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	flannelsFlags().VisitAll(func(f *flag.Flag) {
		if s.Lookup(f.Name) == nil {
			t.Errorf("selvaged has no --%s", f.Name)
		}
		if !regexp.MustCompile("-" + f.Name + "[ =]").MatchString(text) {
			t.Errorf("the table has no --%s", f.Name)
		}
	})
}

// TestFlannelArgs: forms whose difference the values of flags do not show.
func TestFlannelArgs(t *testing.T) {
	s := commands().Flags()
	for _, tt := range []struct{ in, want string }{
		{"-ip-masq true -iface eth0", "--ip-masq --iface eth0"},
		{"--ip-masq T", "--ip-masq"},
		{"--ip-masq version", "--ip-masq version"},
		{"--iface-regex -ip-masq -ip-masq", "--iface-regex -ip-masq --ip-masq"},
		{"status -socket /s -o json", "status --socket /s -o json"},
		{"-iface=eth0 -- -ip-masq", "--iface=eth0 -- -ip-masq"},
		{"-help", "-help"},
	} {
		got, err := flannelArgs(strings.Fields(tt.in), s)
		if err != nil || !slices.Equal(got, strings.Fields(tt.want)) {
			t.Errorf("%s: %q, %v; want %s", tt.in, got, err, tt.want)
		}
	}
	err := execute(context.Background(), []string{"--ip-masq", "false"})
	if err == nil || !strings.Contains(err.Error(), "write --ip-masq=false") {
		t.Errorf("a boolean flag with the word false: %v", err)
	}
}
