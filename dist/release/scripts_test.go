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
cp "$2" "$root/tmp/old"
cp "$3" "$root/tmp/new"
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
printed() { grep -qF "$1" /out || { cat /out; fail "it was not printed: $1"; }; }
run() { "$@" >/out 2>&1 || { cat /out; fail "$*"; }; }

`
const sandboxEnd = `
END
exec chroot "$root" sh /tmp/test
`

// debLifecycle installs, upgrades, removes and purges a package.
const debLifecycle = `
touch /usr/local/bin/selvaged
run dpkg --install /tmp/old
printed "/usr/local/bin/selvaged takes precedence"
printed "selvaged setup --etcd-endpoints="
rm /usr/local/bin/selvaged
called "systemd-tmpfiles --create selvage.conf" "systemctl daemon-reload" \
	"systemctl --no-block try-restart selvaged.service"
selvaged version >/dev/null || fail "selvaged does not run"

# A node with a subnet: the network configuration, and the reference plugins, which the package brings.
mkdir -p /run/flannel
printf 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n' \
	>/run/flannel/subnet.env
run selvaged install-cni
[ -e /etc/cni/net.d/10-selvage.conflist ] || fail "no network configuration"
[ -x /opt/cni/bin/host-local ] || fail "no reference plugin"

# An upgrade keeps a configuration that was edited, restarts the daemon once, and stops nothing.
echo SELVAGED_IFACE=eth1 >>/etc/selvage/selvaged.env
run dpkg --force-confdef --install /tmp/new
! grep -q "enable --now" /out || fail "an upgrade says how to start the daemon"
called "systemd-tmpfiles --create selvage.conf" "systemctl daemon-reload" \
	"systemctl --no-block try-restart selvaged.service"
grep -q SELVAGED_IFACE=eth1 /etc/selvage/selvaged.env || fail "the configuration was replaced"
[ -e /etc/cni/net.d/10-selvage.conflist ] || fail "an upgrade removed the network configuration"
[ ! -e /usr/lib/selvage/purge ] || fail "an upgrade prepares a purge"

# A removal, and an installation after it.
run dpkg --remove selvage
called "systemctl disable --now selvaged.service" "systemctl daemon-reload"
[ ! -e /etc/cni/net.d/10-selvage.conflist ] || fail "the network configuration outlives the plugin"
[ ! -e /opt/cni/bin/selvage ] || fail "the plugin is still there"
[ ! -e /usr/bin/selvaged ] || fail "the program is still there"
grep -q SELVAGED_IFACE=eth1 /etc/selvage/selvaged.env || fail "a removal removed the configuration"
[ -e /run/flannel/subnet.env ] || fail "a removal removed the subnet file"
run dpkg --install /tmp/new
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
run dpkg --purge selvage
! grep -q "cleanup failed" /out || { cat /out; fail "cleanup"; }
[ ! -e /sys/class/net/flannel.1 ] || { cat /out; fail "the overlay's device is still there"; }
[ ! -e /run/flannel/subnet.env ] || fail "the subnet file is still there"
if [ -e /sys/class/net/cni0 ]; then echo "cni0 kept"; else echo "cni0 removed"; fi
for path in /etc/selvage /var/lib/selvage /usr/lib/selvage /opt/cni/bin/host-local; do
	[ ! -e "$path" ] || fail "$path is still there: $(ls -A "$path")"
done
`

// rpmLifecycle installs, upgrades and erases a package. Without --nodeps it would look for /bin/sh in rpm's database.
const rpmLifecycle = `
rm -rf /var/lib/rpm
rpm --initdb
run rpm --install --nodeps /tmp/old
printed "selvaged setup --etcd-endpoints="
called "systemd-tmpfiles --create selvage.conf" "systemctl daemon-reload" \
	"systemctl --no-block try-restart selvaged.service"
run rpm --verify --nodeps selvage
run selvaged version

echo SELVAGED_IFACE=eth1 >>/etc/selvage/selvaged.env
run rpm --upgrade --nodeps /tmp/new
! grep -q "enable --now" /out || fail "an upgrade says how to start the daemon"
called "systemd-tmpfiles --create selvage.conf" "systemctl daemon-reload" \
	"systemctl --no-block try-restart selvaged.service"
grep -q SELVAGED_IFACE=eth1 /etc/selvage/selvaged.env || fail "the configuration was replaced"
[ -e /etc/selvage/selvaged.env.rpmnew ] || fail "the new configuration is missing"

mkdir -p /run/flannel
printf 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n' \
	>/run/flannel/subnet.env
run selvaged install-cni
run rpm --erase selvage
called "systemctl disable --now selvaged.service" "systemctl daemon-reload"
[ ! -e /etc/cni/net.d/10-selvage.conflist ] || fail "the network configuration outlives the plugin"
rm /etc/selvage/selvaged.env.rpmnew
[ "$(ls -A /etc/selvage)" = selvaged.env.rpmsave ] || fail "left in /etc/selvage: $(ls -A /etc/selvage)"
for path in /usr/bin/selvaged /usr/lib/selvage /usr/share/selvage /usr/share/doc/selvage /opt/cni/bin/host-local; do
	[ ! -e "$path" ] || fail "$path is still there: $(ls -A "$path")"
done
echo "rpm done"
`

// upgrade builds a package in two versions, whose configuration has different defaults, and returns their paths.
func upgrade(t *testing.T, format string) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	content, err := Package(format, input(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"1.0.0", "1.0.1"} {
		for i := range content {
			if content[i].Config {
				content[i].Data = append(content[i].Data, "# default "+version+"\n"...)
			}
		}
		s := spec(format, dir)
		s.Version = version
		name, data, err := Build(s, content)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, filepath.Join(dir, name))
		if err := os.WriteFile(paths[len(paths)-1], data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// inSandbox runs a script whose last line must be want.
func inSandbox(t *testing.T, script string, packages []string, want string) {
	t.Helper()
	cmd := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child",
		"sh", "-c", sandbox+script+sandboxEnd, "sh", t.TempDir(), packages[0], packages[1])
	if os.Geteuid() == 0 {
		cmd.Args = append(cmd.Args[:1], cmd.Args[3:]...) // root needs no user namespace
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix("\n"+string(out), "\n"+want+"\n") {
		t.Errorf("%v, want %q:\n%s", err, want, out)
	}
}

// TestDebLifecycle has dpkg install, upgrade, remove and purge a package, with what a node has in its kernel.
func TestDebLifecycle(t *testing.T) {
	packages := upgrade(t, Deb)
	const port = "ip link add port type veth peer name peer\nip link set port master cni0"
	for name, c := range map[string]struct{ address, port, want string }{
		"own":           {"10.5.29.1/24", "", "cni0 removed"},
		"own with port": {"10.5.29.1/24", port, "cni0 kept"},
		"foreign":       {"10.6.0.1/24", "", "cni0 kept"},
	} {
		t.Run(name, func(t *testing.T) {
			script := strings.NewReplacer("ADDRESS", c.address, "PORT", c.port).Replace(debLifecycle)
			inSandbox(t, script, packages, c.want)
		})
	}
}

// TestRPMLifecycle has rpm install, upgrade and erase a package.
func TestRPMLifecycle(t *testing.T) {
	inSandbox(t, rpmLifecycle, upgrade(t, RPM), "rpm done")
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
