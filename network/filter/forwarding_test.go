package filter

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/subnet"
)

// TestEnsureForwarding does it for real, with an uplink whose name has a dot.
func TestEnsureForwarding(t *testing.T) {
	n, err := sandbox.NewNet()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	const uplink = "eth0.100"
	families := []subnet.Family{subnet.IPv4, subnet.IPv6}
	var first, second []string
	read := make(map[string]string)
	err = n.Do(func() error {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: uplink}, PeerName: "far"}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		for _, s := range []sysctl{
			{"net/ipv4/ip_forward", "0"}, {"net/ipv6/conf/all/forwarding", "0"}, {"net/ipv6/conf/eth0.100/accept_ra", "1"},
		} {
			if err := s.write("/proc/sys"); err != nil {
				return err
			}
		}
		if first, err = EnsureForwarding(families, uplink); err != nil {
			return err
		}
		if second, err = EnsureForwarding(families, uplink); err != nil {
			return err
		}
		for _, path := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth0.100/accept_ra"} {
			if read[path], err = readSysctl("/proc/sys", path); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.eth0/100.accept_ra=2", "net.ipv6.conf.all.forwarding=1"}
	if !slices.Equal(first, want) {
		t.Errorf("switched on %q, want %q", first, want)
	}
	if len(second) > 0 {
		t.Errorf("again switched on %q", second)
	}
	for path, want := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/eth0.100/accept_ra": "2",
	} {
		if read[path] != want {
			t.Errorf("%s is %s, want %s", path, read[path], want)
		}
	}
}

// TestEnsureForwardingCases tries the kernel's other answers on a directory of files.
func TestEnsureForwardingCases(t *testing.T) {
	const v4, v6, ra = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth0/accept_ra"
	both := []subnet.Family{subnet.IPv4, subnet.IPv6}
	tests := []struct {
		name     string
		files    map[string]string
		readOnly []string
		families []subnet.Family
		uplink   string
		on       []string
		err      []string // parts of it
		after    map[string]string
	}{
		{name: "all off", files: map[string]string{v4: "0", v6: "0", ra: "1"}, families: both, uplink: "eth0",
			on:    []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.eth0.accept_ra=2", "net.ipv6.conf.all.forwarding=1"},
			after: map[string]string{v4: "1", v6: "1", ra: "2"}},
		{name: "a family not in use", files: map[string]string{v4: "0", v6: "0", ra: "1"}, families: both[:1], uplink: "eth0",
			on: []string{"net.ipv4.ip_forward=1"}, after: map[string]string{v4: "1", v6: "0", ra: "1"}},
		{name: "on already: router advertisements are as the operator wants them", files: map[string]string{v4: "1", v6: "1", ra: "1"}, families: both, uplink: "eth0",
			after: map[string]string{v4: "1", v6: "1", ra: "1"}},
		{name: "router advertisements refused", files: map[string]string{v6: "0", ra: "0"}, families: both[1:], uplink: "eth0",
			on: []string{"net.ipv6.conf.all.forwarding=1"}, after: map[string]string{v6: "1", ra: "0"}},
		{name: "no uplink known", files: map[string]string{v6: "0", ra: "1"}, families: both[1:],
			on: []string{"net.ipv6.conf.all.forwarding=1"}, after: map[string]string{v6: "1", ra: "1"}},
		{name: "no IPv6 in the kernel", files: map[string]string{v4: "0"}, families: both, on: []string{"net.ipv4.ip_forward=1"},
			err: []string{"switch on IPv6 forwarding", v6, "ipv6.disable=1"}, after: map[string]string{v4: "1"}},
		{name: "not readable", files: map[string]string{v6: "0", v4 + "/": ""}, families: both, on: []string{"net.ipv6.conf.all.forwarding=1"},
			err: []string{"switch on IPv4 forwarding", "is a directory"}},
		{name: "read-only, and on", files: map[string]string{v4: "1", v6: "1"}, readOnly: []string{v4, v6}, families: both},
		{name: "read-only, and off", files: map[string]string{v4: "0", v6: "0", ra: "1"}, readOnly: []string{v4, ra}, families: both, uplink: "eth0",
			err:   []string{"switch on IPv4 forwarding", "sysctl -w net.ipv4.ip_forward=1", "switch on IPv6 forwarding", "sysctl -w net.ipv6.conf.eth0.accept_ra=2"},
			after: map[string]string{v6: "0"}}, // never on without its default route kept
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for path, value := range tt.files {
				file := filepath.Join(root, path)
				if strings.HasSuffix(path, "/") {
					if err := os.MkdirAll(file, 0o755); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				if slices.Contains(tt.readOnly, path) {
					readOnly(t, file)
				}
			}
			on, err := ensureForwarding(root, tt.families, tt.uplink)
			if !slices.Equal(on, tt.on) {
				t.Errorf("switched on %q, want %q", on, tt.on)
			}
			if (err == nil) != (len(tt.err) == 0) {
				t.Errorf("error %v", err)
			}
			for _, part := range tt.err {
				if err != nil && !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in: %v", part, err)
				}
			}
			for path, want := range tt.after {
				if got, err := readSysctl(root, path); got != want || err != nil {
					t.Errorf("%s is %q, want %q: %v", path, got, want, err)
				}
			}
		})
	}
}

// readOnly makes a file one that not even root can write, by a mount.
func readOnly(t *testing.T, file string) {
	t.Helper()
	if err := unix.Mount(file, file, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(file, unix.MNT_DETACH) })
	// What the mount below forbids has to be repeated, or an ordinary user may not remount it.
	var fs unix.Statfs_t
	if err := unix.Statfs(file, &fs); err != nil {
		t.Fatal(err)
	}
	flags := uintptr(fs.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if err := unix.Mount("", file, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""); err != nil {
		t.Fatal(err)
	}
}
