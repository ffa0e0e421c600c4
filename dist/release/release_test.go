package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const version = "v1.2.3-4-gabc1234"

var generated = sync.OnceValues(func() (map[string]File, error) {
	return Generate("../../bin/selvaged", version, created)
})

// input is what make build and make tools have built for this machine.
func input(t *testing.T) Input {
	t.Helper()
	texts, err := generated()
	if err != nil {
		t.Fatal(err)
	}
	return Input{Repository: "../..", Binaries: "../../bin", Generated: texts}
}

// build writes a package into a new directory and returns its path. Compressing the programs takes most of the time of
// a build, so the package is not compressed.
func build(t *testing.T, format string) string {
	t.Helper()
	content, err := Package(format, input(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name, data, err := Build(spec(format, dir), content)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func spec(format, tmp string) Spec {
	return Spec{Format: format, Arch: runtime.GOARCH, Version: SemVer(version), Repository: "../..", Temporary: tmp,
		Compression: "gzip:0", Created: created}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// promised is what Documentation/packages.md promises, as "mode path": files of both formats, then those of one.
func promised(t *testing.T, format string) []string {
	t.Helper()
	list := []string{
		"-rw------- /etc/selvage/selvaged.env",
		"-rwxr-xr-x /opt/cni/bin/selvage",
		"lrwxrwxrwx /usr/bin/kubectl-selvage",
		"lrwxrwxrwx /usr/bin/selvaged",
		"lrwxrwxrwx /usr/lib/selvage/bin/selvage",
		"-rwxr-xr-x /usr/lib/selvage/bin/selvaged",
		"-rwxr-xr-x /usr/lib/selvage/libexec/cni/bridge",
		"-rwxr-xr-x /usr/lib/selvage/libexec/cni/host-local",
		"-rwxr-xr-x /usr/lib/selvage/libexec/cni/loopback",
		"-rwxr-xr-x /usr/lib/selvage/libexec/cni/portmap",
		"-rw-r--r-- /usr/lib/systemd/system/selvaged.service",
		"-rw-r--r-- /usr/lib/tmpfiles.d/selvage.conf",
		"-rw-r--r-- /usr/share/bash-completion/completions/selvaged",
		"-rw-r--r-- /usr/share/doc/selvage/CHANGELOG.md",
		"-rw-r--r-- /usr/share/doc/selvage/copyright",
		"-rw-r--r-- /usr/share/fish/vendor_completions.d/selvaged.fish",
	}
	for _, name := range optional() {
		list = append(list, "-rw-r--r-- /usr/share/selvage/"+name)
	}
	for _, page := range []string{"", "-status", "-peers", "-explain", "-mesh", "-doctor", "-config", "-release", "-rotate-key",
		"-cleanup", "-install-cni", "-drops", "-policy", "-policy-explain", "-policy-list", "-policy-test", "-setup",
		"-version", "-connectivity-test"} {
		list = append(list, "-rw-r--r-- /usr/share/man/man8/selvaged"+page+".8.gz")
	}
	zsh := map[string]string{Deb: "vendor-completions", RPM: "site-functions"}[format]
	list = append(list, "-rw-r--r-- /usr/share/zsh/"+zsh+"/_selvaged")
	return sorted(list)
}

func sorted(list []string) []string {
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(a[11:], b[11:]) })
	return list
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	for _, f := range got {
		if !slices.Contains(want, f) {
			t.Errorf("the package has %q, which Documentation/packages.md does not promise", f)
		}
	}
	for _, f := range want {
		if !slices.Contains(got, f) {
			t.Errorf("the package lacks %q", f)
		}
	}
}

// TestOptional looks for files of dist/systemd and dist/host that no package has.
func TestOptional(t *testing.T) {
	own := []string{"systemd/selvaged.service", "systemd/selvage.tmpfiles", "systemd/selvaged.env"}
	for _, dir := range []string{"systemd", "host"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d os.DirEntry, err error) error {
			name := strings.TrimPrefix(filepath.ToSlash(path), "../")
			if err == nil && !d.IsDir() && filepath.Ext(path) != ".go" && !slices.Contains(own, name) &&
				!slices.Contains(optional(), name) {
				t.Errorf("no package has dist/%s", name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDeb has dpkg read a package.
func TestDeb(t *testing.T) {
	path := build(t, Deb)
	if want := "selvage_1.2.3+4.gabc1234-1_" + runtime.GOARCH + ".deb"; filepath.Base(path) != want {
		t.Errorf("%s, want %s", filepath.Base(path), want)
	}
	var got []string
	for line := range strings.Lines(command(t, "dpkg-deb", "--contents", path)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "root/root" {
			t.Fatalf("not a file of root: %q", line)
		}
		if f[0][0] != 'd' {
			got = append(got, f[0]+" "+strings.TrimPrefix(f[5], "."))
		} else if f[0] != "drwxr-xr-x" {
			t.Errorf("the directory %s has the mode %s", f[5], f[0])
		}
	}
	compare(t, sorted(got), promised(t, Deb))

	fields := command(t, "dpkg-deb", "--field", path)
	for _, want := range []string{"Package: selvage\n", "Version: 1.2.3+4.gabc1234-1\n",
		"Architecture: " + runtime.GOARCH + "\n", "Section: net\n"} {
		if !strings.Contains(fields, want) {
			t.Errorf("no %q in\n%s", want, fields)
		}
	}
	control, root := t.TempDir(), t.TempDir()
	command(t, "dpkg-deb", "--control", path, control)
	if data, err := os.ReadFile(filepath.Join(control, "conffiles")); err != nil || string(data) != configPath+"\n" {
		t.Errorf("conffiles %q, %v", data, err)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if info, err := os.Stat(filepath.Join(control, script)); err != nil || info.Mode() != 0o755 {
			t.Errorf("%s: %v, %v", script, info, err)
		}
	}
	// What is installed runs: the program by the link, and the plugin beside it by the other.
	command(t, "dpkg-deb", "--extract", path, root)
	if out := command(t, filepath.Join(root, "usr/bin/selvaged"), "version"); !strings.Contains(out, "selvaged") {
		t.Errorf("selvaged version prints %q", out)
	}
	if link, err := os.Readlink(filepath.Join(root, libDir, "bin/selvage")); err != nil || link != pluginPath {
		t.Errorf("the plugin beside the daemon is %q, %v", link, err)
	}
	for _, name := range []string{"usr/lib/systemd/system/selvaged.service", "usr/lib/tmpfiles.d/selvage.conf"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "/usr/local/") || !strings.HasPrefix(string(data), "# /"+name+"\n") {
			t.Errorf("%s has paths of an installation by hand:\n%s", name, data)
		}
	}
}

// TestUnit has systemd read the unit as a package installs it.
func TestUnit(t *testing.T) {
	root := t.TempDir()
	command(t, "dpkg-deb", "--extract", build(t, Deb), root)
	for _, link := range []string{"bin", "lib"} {
		if err := os.Symlink("usr/"+link, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"sysinit", "basic", "network-online", "multi-user"} {
		path := filepath.Join(root, "usr/lib/systemd/system", target+".target")
		if err := os.WriteFile(path, []byte("[Unit]\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out := command(t, "systemd-analyze", "verify", "--man=no", "--root="+root, "selvaged.service"); out != "" {
		t.Error(out)
	}
}

// TestRPM reads the header of a package.
func TestRPM(t *testing.T) {
	path := build(t, RPM)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := readRPM(data)
	if err != nil {
		t.Fatal(err)
	}
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if want := "selvage-1.2.3+4.gabc1234-1." + arch + ".rpm"; filepath.Base(path) != want {
		t.Errorf("%s, want %s", filepath.Base(path), want)
	}
	for tag, want := range map[uint32]string{tagName: "selvage", tagVersion: "1.2.3+4.gabc1234", tagRelease: "1",
		tagArch: arch, tagBuildHost: "reproducible", tagLicense: license, tagSummary: summary,
		tagDescription: description} {
		if got := h.text(t, tag); got != want {
			t.Errorf("tag %d is %q, want %q", tag, got, want)
		}
	}
	for tag, script := range map[uint32]string{tagPostIn: "postinst", tagPreUn: "prerm", tagPostUn: "postrm"} {
		want, err := os.ReadFile(filepath.Join("scripts", script))
		if got := h.text(t, tag); err != nil || got != string(want) {
			t.Errorf("%s is %q, %v, want %q", script, got, err, want)
		}
	}
	var got []string
	dirs := 0
	for i, name := range h.texts[tagNames] {
		name = h.texts[tagPaths][h.numbers[tagDirs][i]] + name
		mode, kind := os.FileMode(h.numbers[tagModes][i]&0o777), "-"
		switch h.numbers[tagModes][i] & 0o170000 { // S_IFMT
		case 0o040000:
			kind = "d"
			dirs++
		case 0o120000:
			kind, mode = "l", 0o777
		}
		if kind == "d" && (mode != 0o755 || !own.MatchString(name)) {
			t.Errorf("the package owns the directory %s with the mode %o", name, mode)
		}
		owner, group, mtime := h.texts[tagOwners][i], h.texts[tagGroups][i], h.numbers[tagTimes][i]
		if owner != "root" || group != "root" || int64(mtime) != created.Unix() {
			t.Errorf("%s is of %s:%s and of %d", name, owner, group, mtime)
		}
		const config, noReplace = 1 << 0, 1 << 4 // RPMFILE_CONFIG, RPMFILE_NOREPLACE
		flags := h.numbers[tagFlags][i]
		if kept := flags&(config|noReplace) == config|noReplace; kept != (name == configPath) {
			t.Errorf("%s: flags %b", name, flags)
		}
		if kind != "d" {
			got = append(got, kind+mode.String()[1:]+" "+name)
		}
	}
	// Those below /usr/lib: itself, bin, libexec and cni. RPM would leave them behind.
	if dirs < 4 {
		t.Errorf("the package owns %d directories", dirs)
	}
	compare(t, sorted(got), promised(t, RPM))
}

// shorten makes programs small, since compressing them takes long.
func shorten(files []File) {
	for i, f := range files {
		files[i].Data = f.Data[:min(len(f.Data), 100_000)]
	}
}

// TestSame builds each package twice, compressed as in a release, with small programs.
func TestSame(t *testing.T) {
	for _, format := range Formats() {
		content, err := Package(format, input(t))
		if err != nil {
			t.Fatal(err)
		}
		shorten(content)
		var packages [2][]byte
		for i := range packages {
			s := spec(format, t.TempDir())
			s.Compression = ""
			if _, packages[i], err = Build(s, content); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(packages[0], packages[1]) {
			t.Errorf("two packages of the format %s differ", format)
		}
	}
}

// unpack reads a compressed tar archive: "mode path", and the contents.
func unpack(t *testing.T, archive []byte) (list []string, contents map[string]string) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	contents = map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, contents
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil || !h.ModTime.Equal(created) || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: %v, %+v", h.Name, err, h)
		}
		list = append(list, fmt.Sprintf("%o %s", h.Mode, h.Name))
		contents[h.Name] = string(data)
	}
}

func TestTarball(t *testing.T) {
	files, err := Tarball("selvage-1", input(t))
	if err != nil {
		t.Fatal(err)
	}
	shorten(files)
	archive, err := Archive(files, created)
	if err != nil {
		t.Fatal(err)
	}
	list, _ := unpack(t, archive)
	for _, want := range []string{"755 selvage-1/", "755 selvage-1/bin/selvaged", "755 selvage-1/bin/selvage",
		"777 selvage-1/bin/kubectl-selvage",
		"755 selvage-1/libexec/cni/host-local", "644 selvage-1/LICENSE", "644 selvage-1/systemd/selvaged.service",
		"644 selvage-1/man/selvaged.8", "644 selvage-1/completion/_selvaged"} {
		if !slices.Contains(list, want) {
			t.Errorf("no %q in %q", want, list)
		}
	}
}

// TestManifest has the version of a release in the manifests, wherever they name one.
func TestManifest(t *testing.T) {
	for _, name := range []string{"selvage.yaml", "selvage-etcd.yaml"} {
		path := filepath.Join("../kubernetes", name)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Manifest(path, "v1.2.3+dirty")
		if err != nil || strings.Count(string(got), "v1.2.3-dirty") != strings.Count(string(before), "devel") ||
			!strings.Contains(string(got), "image: localhost/selvage:v1.2.3-dirty\n") {
			t.Errorf("%s: %v:\n%s", name, err, got)
		}
	}
	other := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(other, []byte("image: example.org/selvage:devel\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := Manifest(other, "v1"); err == nil {
		t.Errorf("an image that is not replaced: %s", text)
	}
}

func TestChart(t *testing.T) {
	files, err := Chart("../..", "1.2.3", "v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := Archive(files, created)
	if err != nil {
		t.Fatal(err)
	}
	_, contents := unpack(t, archive)
	chart := contents["selvage/Chart.yaml"]
	if !strings.Contains(chart, "\nversion: \"1.2.3\"\n") || !strings.Contains(chart, "\nappVersion: \"v1.2.3\"\n") {
		t.Errorf("Chart.yaml:\n%s", chart)
	}
	for _, name := range []string{"values.yaml", "values.schema.json", "templates/daemonset.yaml",
		"templates/_helpers.tpl"} {
		if contents["selvage/"+name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestSBOM(t *testing.T) {
	data, err := SBOM("selvage", version, "../../bin", created)
	if err != nil {
		t.Fatal(err)
	}
	var doc spdxDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{doc.ID: ""}
	for _, p := range doc.Packages {
		if _, twice := ids[p.ID]; twice {
			t.Errorf("%s is there twice", p.ID)
		}
		ids[p.ID] = p.Name + " " + p.Version
	}
	uses := map[string]bool{}
	for _, r := range doc.Relationships {
		from, known := ids[r.From]
		to, alsoKnown := ids[r.To]
		if !known || !alsoKnown {
			t.Errorf("%+v names a package that is not there", r)
		}
		uses[from+" "+r.Type+" "+to] = true
	}
	// What the go command says of a program, in the form of go version -m.
	found := 0
	for line := range strings.Lines(command(t, "go", "version", "-m", "../../bin/selvaged")) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			found++
			if want := "github.com/selvage-net/selvage " + version + " DEPENDS_ON " + f[1] + " " + f[2]; !uses[want] {
				t.Errorf("no %q", want)
			}
		}
	}
	if found == 0 {
		t.Error("go version -m shows no dependency")
	}
}

func TestProvenance(t *testing.T) {
	files := map[string][]byte{"b": []byte("2"), "a": []byte("1")}
	data, err := Provenance(files,
		Source{Version: "v1", Commit: "abc", Epoch: 7, Go: "go1.26.0", Archs: []string{"amd64"}})
	if err != nil {
		t.Fatal(err)
	}
	const one = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b" // sha256 of "1"
	for _, want := range []string{`"https://in-toto.io/Statement/v1"`, `"https://slsa.dev/provenance/v1"`, one,
		`"gitCommit": "abc"`, `"pkg:golang/toolchain@1.26.0"`, `"sourceDateEpoch": 7`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in\n%s", want, data)
		}
	}
	dir := t.TempDir()
	files["SHA256SUMS"] = Checksums(files)
	if err := Write(dir, files); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "a: OK\nb: OK\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestSemVer(t *testing.T) {
	for describe, want := range map[string]string{
		"v1.2.3": "1.2.3", "v1.2.3-rc.1": "1.2.3-rc.1", "v1.2.3-4-gabc": "1.2.3+4.gabc",
		"v1.2.3-rc.1-4-gabc-dirty": "1.2.3-rc.1+4.gabc.dirty", "v1.2.3-dirty": "1.2.3+dirty",
		"0123456": "0.0.0+0123456", "devel": "0.0.0+devel",
	} {
		if got := SemVer(describe); got != want {
			t.Errorf("%s is %s, want %s", describe, got, want)
		}
	}
}
