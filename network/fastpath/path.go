package fastpath

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// quarantine is how long nothing is learned after a flush: a packet that passed netfilter by the old rules may still be
// on its way to the program that learns from it. A packet takes microseconds; the rest is for a preempted processor.
// Should one take longer, its entry lives for a second.
const quarantine = 20 * time.Millisecond

// Options are how a fast path is opened. The zero value has it end with the process.
type Options struct {
	// Pins is a directory in a BPF file system, for the programs' attachments and maps: they outlive the process, so
	// that connections stay fast over a restart. It is made if it does not exist, but not the file system.
	Pins string
	// Flows is the number of connections of which an entry is kept, in each direction; 0: 65,536. The kernel allocates
	// all of it at once, some 600 bytes a connection.
	Flows int
}

// Path is the programs and their maps, loaded into the kernel. Its methods are safe for concurrent use, and those that
// are about interfaces work in the network namespace of the calling thread.
type Path struct {
	pins    string
	objects programsObjects
	ids     map[Program]uint32 // of the programs

	mu      sync.Mutex
	control [ways]programsControl
	links   map[Attachment]link.Link
}

// Open loads the programs, and takes over what an earlier process has pinned. They do nothing before [Path.Configure]
// and [Path.Beat]. If the kernel cannot have them, [Missing] says why.
func Open(o Options) (*Path, error) {
	spec, err := loadPrograms()
	if err != nil {
		return nil, fmt.Errorf("read the fast path's programs: %w", err)
	}
	if o.Flows > 0 {
		spec.Maps[programsMapSent].MaxEntries = uint32(o.Flows)
		spec.Maps[programsMapReceived].MaxEntries = uint32(o.Flows)
	}
	p := &Path{pins: o.Pins, links: map[Attachment]link.Link{}}
	options := &ebpf.CollectionOptions{}
	if p.pins != "" {
		if err := p.makePins(spec, options); err != nil {
			return nil, err
		}
	}
	if err := spec.LoadAndAssign(&p.objects, options); err != nil {
		return nil, fmt.Errorf("load the fast path's programs: %w", err)
	}
	p.readIDs()
	if err := errors.Join(p.readControl(), p.spreadIdentifications(), p.openLinks()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// makePins makes the directories for pins. Maps are pinned below a name that changes with the programs, since the
// next version may want others.
func (p *Path) makePins(spec *ebpf.CollectionSpec, options *ebpf.CollectionOptions) error {
	hash := sha256.New()
	hash.Write(_ProgramsBytes)
	fmt.Fprint(hash, spec.Maps[programsMapSent].MaxEntries)
	maps := filepath.Join(p.pins, mapsPrefix+hex.EncodeToString(hash.Sum(nil)[:8]))
	for _, dir := range []string{maps, p.linkDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make a directory for pins, in a BPF file system (mount -t bpf bpf /sys/fs/bpf): %w", err)
		}
	}
	old, err := filepath.Glob(filepath.Join(p.pins, mapsPrefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if dir != maps {
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("remove the maps of another version: %w", err)
			}
		}
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinByName
	}
	options.Maps.PinPath = maps
	return nil
}

// mapsPrefix begins the names of directories of maps.
const mapsPrefix = "maps-"

func (p *Path) linkDir() string { return filepath.Join(p.pins, "links") }

func (p *Path) readControl() error {
	for i := range p.control {
		if err := p.objects.Control.Lookup(uint32(i), &p.control[i]); err != nil {
			return fmt.Errorf("read the fast path's map control: %w", err)
		}
	}
	return nil
}

// spreadIdentifications has each processor begin at another number.
func (p *Path) spreadIdentifications() error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("count the processors: %w", err)
	}
	ids := make([]uint32, cpus)
	for i := range ids {
		ids[i] = uint32(i * (1 << 16) / cpus)
	}
	if err := p.objects.Identification.Put(uint32(0), ids); err != nil {
		return fmt.Errorf("write the fast path's map identification: %w", err)
	}
	return nil
}

// Configure tells the programs about the node: for each underlay, IPv4 and IPv6, that has a VXLAN device, and for
// packets without a tunnel. If something differs from before, they stop until the next [Path.Beat], and everything that
// they have learned is flushed.
func (p *Path) Configure(configs ...Config) error {
	want, err := controls(configs)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, have := range p.control {
		want[i].Generation, want[i].LearnFrom = have.Generation, have.LearnFrom
	}
	if want == p.control {
		return nil
	}
	if err := p.beat(0); err != nil {
		return err
	}
	p.control = want
	return p.flush()
}

// Flush makes all that was learned void, from the next packet on. It is to be called after a change of what packets
// of established connections are decided by: rules, leases, routes.
func (p *Path) Flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flush()
}

func (p *Path) flush() error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	for i := range p.control {
		c := &p.control[i]
		c.Generation++
		c.LearnFrom = now + uint64(quarantine)
		if err := p.objects.Control.Put(uint32(i), *c); err != nil {
			return fmt.Errorf("flush the fast path: %w", err)
		}
	}
	return nil
}

// Beat has the programs work for so long; without another call they stop then. 0 stops them at once.
func (p *Path) Beat(life time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beat(life)
}

func (p *Path) beat(life time.Duration) error {
	var until uint64
	if life > 0 {
		now, err := monotonic()
		if err != nil {
			return err
		}
		until = now + uint64(life)
	}
	if err := p.objects.Heartbeat.Put(uint32(0), until); err != nil {
		return fmt.Errorf("write the fast path's heartbeat: %w", err)
	}
	return nil
}

// monotonic is the time that the programs read, in nanoseconds.
func monotonic() (uint64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return uint64(t.Nano()), nil
}

// Counters reads the counters of all processors.
func (p *Path) Counters() (c Counters, err error) {
	for r := range c {
		var each []uint64
		if err := p.objects.Counters.Lookup(uint32(r), &each); err != nil {
			return c, fmt.Errorf("read the fast path's counters: %w", err)
		}
		for _, n := range each {
			c[r] += n
		}
	}
	return c, nil
}

// Close ends the process's hold on the programs. What is pinned works on until the heartbeat is stale; what is not
// pinned ends.
func (p *Path) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := []error{p.objects.Close()}
	for a, l := range p.links {
		errs = append(errs, l.Close())
		delete(p.links, a)
	}
	return errors.Join(errs...)
}

// Remove detaches the programs from all interfaces, removes the pins, and closes.
func (p *Path) Remove() error {
	err := errors.Join(p.Beat(0), p.detachAll(), p.Close())
	if p.pins != "" {
		err = errors.Join(err, os.RemoveAll(p.pins))
	}
	if err != nil {
		return fmt.Errorf("remove the fast path: %w", err)
	}
	return nil
}
