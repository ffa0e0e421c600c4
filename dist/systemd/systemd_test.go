package systemd

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// exposure is the score of `systemd-analyze security` that the daemon's unit may have at most, times ten. 0 is nothing
// allowed; a unit that says nothing about security has 96. The others are those with the drop-in for the fast path, and
// with that for WireGuard in user space, too.
const exposure, fastPathExposure, userSpaceExposure = "19", "20", "22"

// host makes a directory that looks like the root of a machine with the units installed on it.
func host(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, link := range []string{"bin", "lib", "lib64", "sbin"} { // as on a machine with a merged /usr
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		"/etc/systemd/system/docker.service":     "[Service]\nType=notify\nExecStart=/usr/bin/dockerd -H fd://\n",
		"/etc/systemd/system/containerd.service": "[Service]\nType=notify\nExecStart=/usr/bin/containerd\n",
		"/etc/systemd/system/sysinit.target":     "[Unit]\n", "/etc/systemd/system/basic.target": "[Unit]\n",
		"/etc/systemd/system/network-online.target": "[Unit]\n", "/etc/systemd/system/multi-user.target": "[Unit]\n",
		"/usr/local/bin/selvaged": "", "/usr/bin/dockerd": "", "/usr/bin/containerd": "", "/usr/bin/sh": "",
	}
	for _, name := range []string{"selvaged.service", "docker.service.d/selvage.conf", "containerd.service.d/selvage.conf",
		"selvaged.service.d/fast-path.conf", "selvaged.service.d/wireguard-userspace.conf"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files["/etc/systemd/system/"+name] = string(data)
	}
	for path, content := range files {
		mode := os.FileMode(0o644)
		if strings.Contains(path, "/bin/") {
			mode = 0o755
		}
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func analyze(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "ignoring") {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestVerify(t *testing.T) {
	root := host(t)
	for _, unit := range []string{"selvaged.service", "docker.service", "containerd.service"} {
		if out := analyze(t, "verify", "--man=no", "--root="+root, unit); out != "" {
			t.Errorf("%s:\n%s", unit, out)
		}
	}
}

// TestVerifyNotices makes sure that the one before would fail.
func TestVerifyNotices(t *testing.T) {
	root := host(t)
	path := filepath.Join(root, "etc/systemd/system/selvaged.service")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for old, wrong := range map[string]string{"ProtectHome=yes": "ProtectHouse=yes", "Type=notify": "Type=notified", "/usr/local/bin/": "/nowhere/"} {
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(data), old, wrong)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--root="+root, "selvaged.service").CombinedOutput(); err == nil && len(out) == 0 {
			t.Errorf("%s in place of %s was not noticed", wrong, old)
		}
	}
}

func TestSecurity(t *testing.T) {
	root := host(t)
	check := func(most string) {
		t.Helper()
		out := analyze(t, "security", "--offline=true", "--no-pager", "--threshold="+most, "--root="+root, "selvaged.service")
		t.Log(regexp.MustCompile(`(?m)^.*Overall exposure.*$`).FindString(out))
	}
	check(userSpaceExposure)
	if err := os.Remove(filepath.Join(root, "/etc/systemd/system/selvaged.service.d/wireguard-userspace.conf")); err != nil {
		t.Fatal(err)
	}
	check(fastPathExposure)
	if err := os.RemoveAll(filepath.Join(root, "/etc/systemd/system/selvaged.service.d")); err != nil {
		t.Fatal(err)
	}
	check(exposure)
}

// TestDockerOptions runs the command of Docker's drop-in with a dockerd that prints its arguments.
func TestDockerOptions(t *testing.T) {
	data, err := os.ReadFile("docker.service.d/selvage.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, script, found := strings.Cut(string(data), "ExecStart=/bin/sh -c '")
	script, _, closed := strings.Cut(script, "'")
	if !found || !closed {
		t.Fatal("the drop-in has no command of the expected form")
	}
	// As systemd.service(5) has it: a backslash at the end of a line joins it with the next, and $$ is a $.
	script = strings.NewReplacer("\\\n", " ", "$$", "$").Replace(script)
	for _, c := range []struct{ dockerd, masq, ipv6, want string }{
		{"", "true", "", "--ip-masq=false"},
		{"", "false", "", "--ip-masq=true"},
		{"", "true", "fd00:5:0:1d::1/64", "--ip-masq=false --ipv6 --fixed-cidr-v6=fd00:5:0:1d::1/64"},
		{"# knows --allow-direct-routing", "true", "", "--ip-masq=false --allow-direct-routing"},
	} {
		bin := t.TempDir()
		if err := os.WriteFile(filepath.Join(bin, "dockerd"), []byte("#!/bin/sh\necho \"$@\"\n"+c.dockerd+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "FLANNEL_SUBNET=10.5.29.1/24", "FLANNEL_MTU=1450", "FLANNEL_IPMASQ=" + c.masq,
			"FLANNEL_IPV6_SUBNET=" + c.ipv6, "DOCKER_OPTS=--live-restore --debug"}
		out, err := cmd.CombinedOutput()
		got := strings.TrimSpace(string(out))
		if want := "--bip=10.5.29.1/24 --mtu=1450 " + c.want + " --live-restore --debug"; err != nil || !strings.HasSuffix(got, want) {
			t.Errorf("%+v: %q, %v, want %q at the end", c, got, err, want)
		}
	}
}
