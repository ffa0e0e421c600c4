package dockerfile

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/dist/image"
)

var base = flag.String("base", "../../../bin/debian.tar", "archive with the root of a minimal Debian, which stands for the image debian:12-slim")

const (
	root      = "../../.." // of the repository
	reference = "registry.example/selvage:v1-iptables"
	version   = "v1"
)

// podman has a storage, locks and networks of its own, and nothing of the machine's.
type podman struct{ dir string }

func newPodman(t *testing.T) podman {
	t.Helper()
	dir, err := os.MkdirTemp("", "podman-") // t.TempDir is longer than Podman allows
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := podman{dir}
	config := fmt.Sprintf("[engine]\nlock_type = \"file\"\nevents_logger = \"none\"\ncgroup_manager = \"cgroupfs\"\n"+
		"[network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = %q\n", filepath.Join(dir, "networks"))
	if err := os.WriteFile(p.config(), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// config is its containers.conf.
func (p podman) config() string { return filepath.Join(p.dir, "containers.conf") }

func (p podman) run(t *testing.T, args ...string) string {
	t.Helper()
	own := []string{"--root", filepath.Join(p.dir, "root"), "--runroot", filepath.Join(p.dir, "run"), "--tmpdir", filepath.Join(p.dir, "tmp")}
	var out, problems bytes.Buffer
	cmd := exec.Command("podman", append(own, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.config())
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("podman %s: %v\n%s%s", strings.Join(args, " "), err, out.Bytes(), problems.Bytes())
	}
	return strings.TrimSpace(out.String())
}

func TestDockerfile(t *testing.T) {
	p := newPodman(t)
	p.run(t, "import", *base, "debian:12-slim")
	p.run(t, "build", "--isolation", "chroot", "--network", "host", "--build-arg", "VERSION="+version,
		"--file", filepath.Join(root, "dist/image/Dockerfile"), "--tag", reference, root)
	want := image.Selvage(runtime.GOARCH, filepath.Join(root, "bin"), version, time.Time{})

	var config struct {
		User       string
		Entrypoint []string
		Cmd        []string
		Labels     map[string]string
	}
	if err := json.Unmarshal([]byte(p.run(t, "image", "inspect", "--format", "{{json .Config}}", reference)), &config); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(config.Labels, func(name, _ string) bool { return strings.HasPrefix(name, "io.buildah.") }) // the builder's own
	if config.User != "" || !slices.Equal(config.Entrypoint, want.Command) || len(config.Cmd) > 0 || !maps.Equal(config.Labels, want.Labels) {
		t.Errorf("the configuration is %+v, want that of %+v", config, want)
	}

	mounted := p.run(t, "image", "mount", reference)
	defer p.run(t, "image", "umount", "--all")
	var programs []string
	for _, f := range want.Files {
		programs = append(programs, f.Path)
		inside := filepath.Join(mounted, f.Path)
		info, err := os.Stat(inside)
		if err != nil || info.Mode() != 0o755 {
			t.Fatalf("%s: %v, %v, want an executable file", f.Path, info, err)
		}
		got, err := os.ReadFile(inside)
		if err != nil {
			t.Fatal(err)
		}
		built, err := os.ReadFile(f.From)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, built) {
			t.Errorf("%s is not what make build has built", f.Path)
		}
	}
	for _, dir := range []string{filepath.Dir(image.Daemon), image.Reference} {
		entries, err := os.ReadDir(filepath.Join(mounted, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); !slices.Contains(programs, path) {
				t.Errorf("%s is in this image alone", path)
			}
		}
	}
	for _, argv := range [][]string{{"iptables", "--version"}, {"ip6tables", "--version"}, {image.Daemon, "--version"}} {
		if out, err := exec.Command("chroot", append([]string{mounted}, argv...)...).CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%s in the image: %v: %s", strings.Join(argv, " "), err, out)
		} else {
			t.Logf("%s", out)
		}
	}
}
