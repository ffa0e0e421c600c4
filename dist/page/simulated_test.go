package page

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/selvage-net/selvage/network/mesh"
	"github.com/selvage-net/selvage/network/mesh/page"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/network/reach"
)

// cluster is a simulated one: the page's server is real, and so is the choice of who probes whom.
type cluster struct {
	mu      sync.Mutex
	targets []mesh.Target
	answers []mesh.Answer
	detail  mesh.Detail // of each node
}

// simulate makes a cluster of nodes that are well.
func simulate(nodes int) *cluster {
	c := &cluster{}
	var keys []string
	for i := range nodes {
		a := netip.AddrFrom4([4]byte{172, 31, byte(i / 100), byte(i%100 + 1)})
		keys = append(keys, fmt.Sprintf("10.%d.%d.0-24", 5+i/256, i%256))
		c.targets = append(c.targets, mesh.Target{Key: keys[i], Node: fmt.Sprint("node", i+1), Public: []netip.Addr{a}})
	}
	now := time.Now()
	for i, key := range keys {
		s := &mesh.Summary{
			Version: 1, Now: now, Node: c.targets[i].Node, Lease: key, Selvaged: "v1.2.3", Kernel: "6.12.1", Started: now.Add(-time.Hour),
			State: status.Ready, Since: now.Add(-time.Hour), Networks: []string{"10.5.0.0/16"}, Backend: "vxlan", Config: "3f2a1b9c",
			Peers: status.PeerCounts{Programmed: nodes - 1}, Entries: []mesh.Entries{{Kind: "route", Desired: nodes - 1}},
		}
		p := mesh.Probes{Family: "IPv4"}
		for n, to := range reach.Choose(key, func(yield func(string) bool) {
			for _, k := range keys {
				if k != key && !yield(k) {
					return
				}
			}
		}) {
			p.Peers = append(p.Peers, status.ProbedPeer{Key: to, State: status.Reachable, RTT: time.Duration(200+50*n) * time.Microsecond,
				Recent: 32, Path: []string{"vxlan", "direct"}[n%2]})
		}
		s.Probes = []mesh.Probes{p}
		c.answers = append(c.answers, mesh.Answer{Summary: s})
	}
	return c
}

// change changes the cluster between two queries.
func (c *cluster) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// lose makes every probe of a node fail.
func (c *cluster) lose(key string) {
	for i := range c.answers {
		if s := c.answers[i].Summary; s != nil {
			for j, p := range s.Probes[0].Peers {
				if p.Key == key {
					next := *s
					next.Probes = []mesh.Probes{{Family: "IPv4", Peers: slices.Clone(s.Probes[0].Peers)}}
					next.Probes[0].Peers[j].State, next.Probes[0].Peers[j].Lost = status.Unreachable, 9
					c.answers[i].Summary = &next
				}
			}
		}
	}
}

func (c *cluster) view(context.Context) (mesh.Cluster, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mesh.Assemble(c.targets, slices.Clone(c.answers), time.Now()), nil
}

func (c *cluster) tell(context.Context, string) (mesh.Told, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.detail
	return mesh.Told{Detail: &d}, nil
}

// serve serves the page of the cluster until the test ends, and returns its address.
func (c *cluster) serve(t *testing.T) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- page.Serve(ctx, l, page.Options{Source: c.view, Detail: c.tell}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/"
}

// TestHostile: what nodes say is shown as text, whatever it is.
func TestHostile(t *testing.T) {
	const markup = `<img src=x onerror=alert(1)>`
	c := simulate(3)
	c.change(func() {
		s := c.answers[1].Summary
		c.targets[1].Node, s.Node, s.Selvaged, s.Kernel = markup, markup, markup, markup
		s.Problems = []mesh.Problem{{Topic: markup, Code: markup}}
		s.LastRepairs = []mesh.Repair{{At: time.Now(), Kind: markup, What: "</li><script>alert(2)</script>"}}
		s.Probes[0].Peers[0].Path, s.State = markup, status.State(markup)
		s.Probes[0].Peers[0].FastPath, s.Zone = markup, markup
		end := status.PolicyEnd{Pod: markup, Node: markup}
		c.detail = mesh.Detail{
			Repairs: []status.Repair{{At: time.Now(), Kind: markup, Key: "</li><script>alert(3)</script>", What: markup, By: markup}},
			Drops: []status.Drop{{At: time.Now(), Direction: markup, Cause: markup, Policy: markup, Protocol: markup, Source: end, Destination: end},
				{At: time.Now(), Isolated: []string{"</td><script>alert(4)</script>"}}},
			Examination: &mesh.Examination{Findings: []mesh.Examined{{Check: markup, Level: markup, Evidence: markup, Advice: "</ul><script>alert(5)</script>"}}},
		}
	})
	b := openPage(t, c.serve(t))
	b.await(text("#rows tr td"), markup)
	b.do(click("#rows tr td"))
	b.await(text("#detail h2"), markup)
	b.await(text("#repairs"), "<script>alert(3)</script>")
	b.await(text("#denied"), "<script>alert(4)</script>")
	b.await(text("#doctor"), "<script>alert(5)</script>")
	b.key("2", "3")
	b.await(text("#graph-text"), "node")
	if n := b.eval("document.querySelectorAll('img, #stage script').length"); n != "0" {
		t.Errorf("%s elements were made of what a node says", n)
	}
}

// TestMany: pages of clusters of any size show who does not answer, by the keyboard too.
func TestMany(t *testing.T) {
	for _, nodes := range []int{1, 200, 2000} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			c := simulate(nodes)
			c.change(func() { // of 2,000 nodes, three in four are in one of three zones
				for i := range nodes {
					if nodes > 1000 && i%4 > 0 {
						c.answers[i].Summary.Zone = fmt.Sprint("zone-", i%4)
					}
				}
			})
			began := time.Now()
			b := openPage(t, c.serve(t))
			b.await(text("#counts"), fmt.Sprint(nodes, " node"))
			b.await("document.body.dataset.drawn.length > 0", "true")
			t.Logf("%d nodes are shown after %s, with the browser's start", nodes, time.Since(began).Round(10*time.Millisecond))
			for name, call := range map[string]string{"nodes": "1", "matrix": "2", "graph": "3"} {
				b.key(call)
				var ms float64
				b.do(evaluateAsync(fmt.Sprintf(`import("./%s.js").then(async (m) => {
					const began = performance.now();
					for (let i = 0; i < 10; i++) m.draw();
					return (performance.now() - began) / 10;
				})`, name), &ms))
				t.Logf("%s: drawn in %.1f ms", name, ms)
			}
			switch nodes {
			case 1:
				return
			case 200:
				b.key("2", kb.Home, kb.ArrowRight)
				b.await(text("#matrix-text"), "node1 → node2")
			case 2000: // a group of nodes for each, of which Enter shows the nodes, and Escape returns
				b.key("2", kb.Home)
				b.await(text("#matrix-text"), "zone-1 (500 nodes) → zone-1 (500 nodes)")
				b.do(chromedp.SetValue("#grouping", "prefix", chromedp.ByQuery),
					chromedp.Evaluate(`document.querySelector("#grouping").dispatchEvent(new Event("change"))`, nil))
				b.await(text("#matrix-text"), "172.31.0.0/")
				b.key("2")
				b.key(kb.Enter)
				b.await(text("#matrix-text"), "node1 → node1")
				b.key(kb.Escape)
				b.await(text("#matrix-text"), "172.31.0.0/")
			}
			c.change(func() { c.lose(c.targets[7].Key) })
			b.key("1")
			b.await(text("#rows tr td"), "node8")
			b.await(text("#rows tr td:last-child"), "does not answer the probes of")
		})
	}
}
