package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sandbox runs a script in user, mount, pid and network namespaces of its own, on a copy of this machine's files that
// ends with it: an overlay of / with a tmpfs above. systemctl and systemd-tmpfiles only write down their arguments,
// into /calls; the real ones would need a systemd as pid 1.
const sandbox = `
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" overlay "$1/root"
root=$1/root
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
cp "$2" "$root/tmp/old.deb"
cp "$3" "$root/tmp/new.deb"
cat >"$root/tmp/test" <<'END'
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
fail() { echo "FAIL: $*"; exit 1; }
mkdir -p /run/systemd/system
rm -f /var/lib/man-db/auto-update # an index of all man pages takes long
rm -f /usr/local/bin/selvaged /usr/bin/systemctl /usr/bin/systemd-tmpfiles /bin/systemctl /bin/systemd-tmpfiles
rm -rf /var/lib/selvage /etc/selvage /etc/cni /opt/cni /var/lib/cni
for name in systemctl systemd-tmpfiles; do
	printf '#!/bin/sh\necho "%s $*" >>/calls\n' $name >/usr/bin/$name
	chmod 755 /usr/bin/$name
done
called() { # whether exactly these calls were made since the last time
	printf '%s\n' "$@" >/expected
	diff /expected /calls || fail "other calls than expected, marked by >"
	rm /calls
}
printed() { grep -qF "$1" /out || { cat /out; fail "dpkg did not print: $1"; }; }

`
const sandboxEnd = `
END
exec chroot "$root" sh /tmp/test
`

// lifecycle installs, upgrades, removes and purges a package.
const lifecycle = `
touch /usr/local/bin/selvaged
dpkg --install /tmp/old.deb >/out 2>&1 || { cat /out; fail "install"; }
printed "/usr/local/bin/selvaged takes precedence"
printed "systemctl enable --now selvaged"
rm /usr/local/bin/selvaged
called "systemd-tmpfiles --create selvage.conf" "systemctl daemon-reload" \
	"systemctl --no-block try-restart selvaged.service"
selvaged version >/dev/null || fail "selvaged does not run"

# A node with a subnet: the network configuration, and the reference plugins, which the package brings.
mkdir -p /run/flannel
printf 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n' \
	>/run/flannel/subnet.env
selvaged install-cni >/out 2>&1 || { cat /out; fail "install-cni"; }
[ -e /etc/cni/net.d/10-selvage.conflist ] || fail "no network configuration"
[ -x /opt/cni/bin/host-local ] || fail "no reference plugin"

# An upgrade keeps a configuration that was edited, restarts the daemon once, and stops nothing.
echo SELVAGED_IFACE=eth1 >>/etc/selvage/selvaged.env
dpkg --force-confdef --install /tmp/new.deb >/out 2>&1 || { cat /out; fail "upgrade"; }
! grep -q "enable --now" /out || fail "an upgrade says how to start the daemon"
called "systemd-tmpfiles --create selvage.conf" "systemctl daemon-reload" \
	"systemctl --no-block try-restart selvaged.service"
grep -q SELVAGED_IFACE=eth1 /etc/selvage/selvaged.env || fail "the configuration was replaced"
[ -e /etc/cni/net.d/10-selvage.conflist ] || fail "an upgrade removed the network configuration"
[ ! -e /usr/lib/selvage/purge ] || fail "an upgrade prepares a purge"

# A removal, and an installation after it.
dpkg --remove selvage >/out 2>&1 || { cat /out; fail "remove"; }
called "systemctl disable --now selvaged.service" "systemctl daemon-reload"
[ ! -e /etc/cni/net.d/10-selvage.conflist ] || fail "the network configuration outlives the plugin"
[ ! -e /opt/cni/bin/selvage ] || fail "the plugin is still there"
[ ! -e /usr/bin/selvaged ] || fail "the program is still there"
grep -q SELVAGED_IFACE=eth1 /etc/selvage/selvaged.env || fail "a removal removed the configuration"
[ -e /run/flannel/subnet.env ] || fail "a removal removed the subnet file"
dpkg --install /tmp/new.deb >/out 2>&1 || { cat /out; fail "install again"; }
[ ! -e /usr/lib/selvage/purge ] || fail "the program for a purge is still there"
rm /calls

# A purge, with an overlay in the kernel: a device and a bridge of ours, and a port that keeps a bridge.
mkdir -p /var/lib/selvage
echo '{}' >/var/lib/selvage/leases
ip link add flannel.1 type vxlan id 1 dstport 8472 nolearning
ip link set flannel.1 alias selvage
ip link add cni0 type bridge
ip address add ADDRESS dev cni0
PORT
dpkg --purge selvage >/out 2>&1 || { cat /out; fail "purge"; }
! grep -q "cleanup failed" /out || { cat /out; fail "cleanup"; }
[ ! -e /sys/class/net/flannel.1 ] || { cat /out; fail "the overlay's device is still there"; }
[ ! -e /run/flannel/subnet.env ] || fail "the subnet file is still there"
if [ -e /sys/class/net/cni0 ]; then echo "cni0 kept"; else echo "cni0 removed"; fi
for path in /etc/selvage /var/lib/selvage /usr/lib/selvage /opt/cni/bin/host-local; do
	[ ! -e "$path" ] || fail "$path is still there: $(ls -A "$path")"
done
`

// TestLifecycle has dpkg install, upgrade, remove and purge a package, with what a node has in its kernel.
func TestLifecycle(t *testing.T) {
	dir := t.TempDir()
	content, err := Package(Deb, input(t))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for i, version := range []string{"1.0.0", "1.0.1"} {
		for j := range content {
			if content[j].Config { // a new default, which must not replace an edited file
				content[j].Data = append(content[j].Data, "# default "+version+"\n"...)
			}
		}
		_, data, err := Build(Deb, "all", version, "../..", dir, content, created)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, []string{"old.deb", "new.deb"}[i]))
		if err := os.WriteFile(paths[i], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ address, port, want string }{
		"ours":         {"10.5.29.1/24", "", "cni0 removed"},
		"ours, a port": {"10.5.29.1/24", "ip link add port type dummy && ip link set port master cni0", "cni0 kept"},
		"another's":    {"10.6.0.1/24", "", "cni0 kept"},
	} {
		t.Run(name, func(t *testing.T) {
			test := strings.NewReplacer("ADDRESS", c.address, "PORT", c.port).Replace(lifecycle)
			cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork",
				"--kill-child", "sh", "-c", sandbox+test+sandboxEnd, "sh", t.TempDir(), paths[0], paths[1])
			if os.Geteuid() == 0 {
				cmd.Args = append(cmd.Args[:1], cmd.Args[3:]...) // root needs no user namespace
			}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), c.want+"\n") {
				t.Errorf("%v, want %q:\n%s", err, c.want, out)
			}
		})
	}
}

// TestScriptsThatDoNothing runs the scripts as dpkg and rpm do where nothing must happen.
func TestScriptsThatDoNothing(t *testing.T) {
	for _, args := range [][]string{{"prerm", "1"}, {"prerm", "upgrade", "1.0.1"}, {"prerm", "failed-upgrade", "1.0.0"},
		{"postrm", "1"}, {"postrm", "upgrade", "1.0.1"}, {"postrm", "abort-install"},
		{"postinst", "abort-upgrade", "1.0.1"}, {"postinst", "abort-remove"}} {
		args[0] = filepath.Join("scripts", args[0])
		cmd := exec.Command("/bin/sh", append([]string{"-x"}, args...)...)
		cmd.Env = []string{"PATH="} // no program would be found
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "exit 0") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}
