package filter

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// TestWatch makes changes with iptables-nft, each under a subscription of its own, and waits for the news.
func TestWatch(t *testing.T) {
	defer goleak.VerifyNone(t)
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	program, err := lookUp("iptables-nft") // an ordinary user's PATH lacks sbin
	if err != nil {
		t.Fatal(err)
	}
	iptables := func(args ...string) func() error {
		return func() error { return exec.Command(program, args...).Run() }
	}
	for _, change := range []struct {
		what string
		do   func() error
	}{
		{"our own rules", func() error {
			_, err := New(subnet.IPv4).Ensure(t.Context(), Policy{
				Networks: []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16")}, Forward: true, Masquerade: true,
			})
			return err
		}},
		{"our chain flushed", iptables("-F", ForwardChain)},
		{"FORWARD flushed", iptables("-F", "FORWARD")},
		{"a rule put first", iptables("-I", "FORWARD", "-j", "DROP")},
		{"a rule deleted", iptables("-D", "FORWARD", "-j", "DROP")},
		{"nat flushed", iptables("-t", "nat", "-F")},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ready, news, done := make(chan struct{}), make(chan struct{}, 1), make(chan error, 1)
		var stirred atomic.Bool
		go func() {
			done <- ns.Do(func() error {
				return Watch(ctx, func() { close(ready) }, func() {
					select {
					case news <- struct{}{}:
					default:
					}
				}, func() { stirred.Store(true) })
			})
		}()
		<-ready
		if err := ns.Do(change.do); err != nil {
			t.Errorf("%s: %v", change.what, err)
		} else {
			select {
			case <-news:
			case <-time.After(10 * time.Second):
				t.Errorf("no news of %s", change.what)
			}
			if !stirred.Load() {
				t.Errorf("%s did not stir", change.what)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestWatchOverrun has more news come than the socket holds while nobody takes any, and a change after that.
func TestWatchOverrun(t *testing.T) {
	defer goleak.VerifyNone(t)
	ns, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	restore, err := lookUp("iptables-nft-restore")
	if err != nil {
		t.Fatal(err)
	}
	fill := func(rules int) {
		t.Helper()
		input := "*filter\n:FORWARD ACCEPT [0:0]\n" + strings.Repeat("-A FORWARD -p udp -j ACCEPT\n", rules) + "COMMIT\n"
		err := ns.Do(func() error {
			cmd := exec.Command(restore)
			cmd.Stdin = strings.NewReader(input)
			return cmd.Run()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, held, taken, done := make(chan struct{}), make(chan struct{}), make(chan int, 1000), make(chan error, 1)
	calls := 0
	go func() {
		done <- ns.Do(func() error {
			return Watch(ctx, func() { close(ready) }, func() {
				<-held
				calls++
				select {
				case taken <- calls:
				default:
				}
			}, func() {})
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	<-ready
	for range 5 {
		fill(2000)
	}
	close(held)
	quiet := func() {
		for {
			select {
			case <-taken:
			case <-time.After(300 * time.Millisecond): // as good as nothing more to come
				return
			}
		}
	}
	quiet()
	fill(1)
	select {
	case <-taken:
	case <-time.After(10 * time.Second):
		t.Error("no news of a change after the socket overran")
	}
}

func TestConcerns(t *testing.T) {
	message := func(family byte, attrs ...any) []byte {
		b := []byte{family, 0, 0, 0}
		for i := 0; i < len(attrs); i += 2 {
			s := attrs[i+1].(string) + "\x00"
			b = append(b, byte(4+len(s)), 0, byte(attrs[i].(int)), 0)
			b = append(b, s...)
			for len(b)%4 != 0 {
				b = append(b, 0)
			}
		}
		return b
	}
	const newTable, newChain, newRule, delRule, newSet = 0x0a00, 0x0a03, 0x0a06, 0x0a08, 0x0a09
	for _, tt := range []struct {
		name string
		typ  uint16
		data []byte
		want bool
	}{
		{"rule in our chain", newRule, message(2, 1, "filter", 2, ForwardChain), true},
		{"rule in our chain, IPv6", delRule, message(10, 1, "nat", 2, MasqueradeChain), true},
		{"rule in FORWARD", newRule, message(2, 1, "filter", 2, "FORWARD"), true},
		{"rule in INPUT", newRule, message(2, 1, "filter", 2, "INPUT"), false},
		{"rule in another table", newRule, message(2, 1, "mangle", 2, "FORWARD"), false},
		{"rule in kube-proxy's chain", newRule, message(2, 1, "nat", 2, "KUBE-SERVICES"), false},
		{"family inet", newRule, message(1, 1, "filter", 2, "FORWARD"), false},
		{"our chain", newChain, message(2, 1, "nat", 3, MasqueradeChain), true},
		{"another chain", newChain, message(2, 1, "nat", 3, "DOCKER"), false},
		{"a table", newTable, message(2, 1, "nat"), true},
		{"another table", newTable, message(2, 1, "raw"), false},
		{"a set", newSet, message(2, 1, "filter", 2, "FORWARD"), false},
		{"another subsystem", 0x0106, message(2, 1, "filter", 2, "FORWARD"), false},
		{"cut off", newRule, []byte{2, 0}, false},
		{"attribute too long", newRule, []byte{2, 0, 0, 0, 200, 0, 1, 0, 'n'}, false},
	} {
		if got := concerns(tt.typ, tt.data); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
