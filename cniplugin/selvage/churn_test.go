package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
	"github.com/selvage-net/selvage/subnet/subnetfile"
)

const (
	churnPods   = 500              // at most at the same time on the node: as many as fit into churnBudget
	churnBudget = 20 * time.Second // about the duration of the whole
	churnEnv    = "CHURN_PODS"     // sets the number of pods
	churnMost   = 1<<10 - 3        // addresses in the subnet
	atOnce      = 16               // verbs
)

// churn is a runtime that starts and ends many containers at once.
type churn struct {
	*node
	pods   []*sandbox.Net // by number
	mu     sync.Mutex
	holder map[netip.Addr]string // who has an address, from ADD's result to DEL's start
}

// TestChurn chooses the number of pods by how fast the machine is. To set it:
//
//	CHURN_PODS=1000 go test -race -v -run Churn ./cniplugin/selvage
func TestChurn(t *testing.T) {
	pods := 0
	if s := os.Getenv(churnEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > churnMost {
			t.Fatalf("%s is %q, want a number from 1 to %d", churnEnv, s, churnMost)
		}
		pods = n
	}
	testChurn(t, build(t), pods)
}

// testChurn adds many containers and deletes them, a quarter of them twice, while the daemon keeps writing its file. In
// the end nothing must be left. A count of 0 is replaced by what the machine can do within churnBudget.
func testChurn(t *testing.T, bin string, count int) {
	file := ipv4File()
	file.Subnets[subnet.IPv4] = netip.MustParsePrefix("10.5.28.1/22") // 1021 addresses
	c := &churn{node: newNode(t, bin, "1.0.0", "selvage", file), holder: map[netip.Addr]string{}}
	stop := c.restart(file)
	begin := time.Now()
	add := func(cni *libcni.CNIConfig, i int) error {
		var err error
		if c.pods[i], err = c.host.NewNet(); err != nil {
			return err
		}
		if err := c.attach(cni, i, c.pods[i]); err != nil || i%4 != 0 {
			return err
		}
		return errors.Join(c.detach(cni, i, c.pods[i]), c.attach(cni, i, c.pods[i]))
	}
	first := min(count, atOnce)
	if count == 0 {
		first = atOnce
	}
	c.pods = make([]*sandbox.Net, first)
	c.each(0, add)
	if count == 0 {
		took := time.Since(begin) / atOnce                               // of a container's ADD
		count = max(4*atOnce, min(churnPods, int(churnBudget/(2*took)))) // its DEL takes about as long
	}
	c.pods = append(c.pods, make([]*sandbox.Net, count-first)...)
	c.each(first, add)
	if len(c.holder) != count && !t.Failed() {
		t.Errorf("%d addresses are in use, want %d", len(c.holder), count)
	}
	c.wantVeths(count)
	c.each(0, func(cni *libcni.CNIConfig, i int) error {
		return errors.Join(c.detach(cni, i, c.pods[i]), c.pods[i].Close())
	})
	t.Logf("%d containers added and deleted, a quarter of them twice, in %v; the subnet file was written %d times",
		count, time.Since(begin).Round(time.Millisecond), stop())
	c.wantAddresses()
	c.wantState()
	c.wantVeths(0)
}

// restart writes the subnet file over and over, as a daemon does that is restarted, each time with something changed.
func (c *churn) restart(file subnetfile.File) (stop func() int) {
	ctx := make(chan struct{})
	written := make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-ctx:
				written <- n
				return
			case <-time.After(20 * time.Millisecond):
			}
			file.MTU = 1400 + n%2
			if err := c.host.Do(func() error { return subnetfile.Write(subnetFile, file) }); err != nil {
				c.Error(err)
			}
		}
	}()
	return func() int { close(ctx); return <-written }
}

// each does something with every container from a number on, atOnce at a time. It goes on after an error.
func (c *churn) each(from int, do func(cni *libcni.CNIConfig, i int) error) {
	c.Helper()
	next := make(chan int)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			var stderr bytes.Buffer
			cni := libcni.NewCNIConfig(c.cni.Path, &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: &stderr}})
			for i := range next {
				if err := do(cni, i); err != nil {
					c.Errorf("container %d: %v", i, err)
				}
			}
			if stderr.Len() > 0 {
				c.Errorf("on stderr: %s", &stderr)
			}
		})
	}
	for i := from; i < len(c.pods); i++ {
		next <- i
	}
	close(next)
	workers.Wait()
}

// nameTaken is in bridge's error, once in thousands of times, if the name that it chose at random for the node's end of a
// pair is taken. It would choose another, but looks for the taken one in the container (SetupVethWithName in
// pkg/ip/link_linux.go).
const nameTaken = "already exists"

func (c *churn) attach(cni *libcni.CNIConfig, i int, pod *sandbox.Net) error {
	return c.host.Do(func() error {
		r, err := cni.AddNetworkList(c.Context(), c.list, runtimeConf(i, pod))
		if err != nil && strings.Contains(err.Error(), nameTaken) {
			c.Logf("container %d, which is added again, as a runtime does: %v", i, err)
			r, err = cni.AddNetworkList(c.Context(), c.list, runtimeConf(i, pod))
		}
		if err != nil {
			return err
		}
		result, err := types100.GetResult(r)
		if err != nil {
			return err
		}
		a, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
		c.mu.Lock()
		defer c.mu.Unlock()
		if other, taken := c.holder[a.Unmap()]; taken {
			return fmt.Errorf("%s is %s's already", a, other)
		}
		c.holder[a.Unmap()] = fmt.Sprintf("container %d", i)
		return nil
	})
}

func (c *churn) detach(cni *libcni.CNIConfig, i int, pod *sandbox.Net) error {
	c.mu.Lock()
	for a, holder := range c.holder { // before DEL: another container may get it before DEL returns
		if holder == fmt.Sprintf("container %d", i) {
			delete(c.holder, a)
		}
	}
	c.mu.Unlock()
	return c.host.Do(func() error { return cni.DelNetworkList(c.Context(), c.list, runtimeConf(i, pod)) })
}

func runtimeConf(i int, pod *sandbox.Net) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: fmt.Sprintf("c%d", i), NetNS: pod.Path(), IfName: "eth0"}
}
