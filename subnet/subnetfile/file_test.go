package subnetfile

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

// prefixes parses what is known to be right.
func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// goldenFiles are subnet files by the name of the file in testdata that flannel would write for them.
func goldenFiles() map[string]File {
	four, six := netip.MustParsePrefix("10.5.29.1/24"), netip.MustParsePrefix("fd00:5:0:1d::1/64")
	return map[string]File{
		"ipv4": {Networks: [2][]netip.Prefix{subnet.IPv4: prefixes("10.5.0.0/16")}, Subnets: [2]netip.Prefix{subnet.IPv4: four},
			MTU: 1450, IPMasq: true},
		"ipv6": {Networks: [2][]netip.Prefix{subnet.IPv6: prefixes("fd00:5::/56")}, Subnets: [2]netip.Prefix{subnet.IPv6: six},
			MTU: 1430},
		"dual": {Networks: [2][]netip.Prefix{prefixes("10.5.0.0/16"), prefixes("fd00:5::/56")},
			Subnets: [2]netip.Prefix{four, six}, MTU: 1450, IPMasq: true},
		"networks": {Networks: [2][]netip.Prefix{subnet.IPv4: prefixes("10.5.0.0/16", "10.6.0.0/16")},
			Subnets: [2]netip.Prefix{subnet.IPv4: four}, MTU: 1450},
	}
}

func TestFileGolden(t *testing.T) {
	for name, f := range goldenFiles() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".env")
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Marshal(); string(got) != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
			read, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(read, f) {
				t.Errorf("read back as %+v, want %+v", read, f)
			}
		})
	}
}

func TestParseTolerant(t *testing.T) {
	one := goldenFiles()["ipv4"]
	two := goldenFiles()["networks"]
	bare := one
	bare.MTU, bare.IPMasq = 0, false
	for name, test := range map[string]struct {
		text string
		want File
	}{
		"comments and blank lines": {"# by hand\n\nFLANNEL_NETWORK=10.5.0.0/16\n  # more\nFLANNEL_SUBNET=10.5.29.1/24 # mine\n\t\n" +
			"FLANNEL_MTU=1450\t# bytes\nFLANNEL_IPMASQ=true\n", one},
		"CRLF":           {"FLANNEL_NETWORK=10.5.0.0/16\r\nFLANNEL_SUBNET=10.5.29.1/24\r\nFLANNEL_MTU=1450\r\nFLANNEL_IPMASQ=true\r\n", one},
		"no end of line": {"FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true", one},
		"byte order mark": {"\ufeffFLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\n" +
			"FLANNEL_IPMASQ=true\n", one},
		"quotes": {"FLANNEL_NETWORK=\"10.5.0.0/16\"\nFLANNEL_SUBNET='10.5.29.1/24'\nFLANNEL_MTU=\"1450\" # quoted\n" +
			"FLANNEL_IPMASQ=' true '\n", one},
		"export": {"export FLANNEL_NETWORK=10.5.0.0/16\nexport\tFLANNEL_SUBNET=10.5.29.1/24\nexport  FLANNEL_MTU=1450\n" +
			"export FLANNEL_IPMASQ=true\n", one},
		"spaces":           {" FLANNEL_NETWORK = 10.5.0.0/16 \nFLANNEL_SUBNET\t=\t10.5.29.1/24\nFLANNEL_MTU= 1450\nFLANNEL_IPMASQ =true\n", one},
		"another order":    {"FLANNEL_IPMASQ=1\nFLANNEL_MTU=1450\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_NETWORK=10.5.0.0/16\n", one},
		"unknown keys":     {"FLANNEL_NEW='\nPATH=\"a b\nFLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", one},
		"the last counts":  {"FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_MTU=900\nFLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", one},
		"empty is none":    {"FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_IPV6_NETWORK=\nFLANNEL_IPV6_SUBNET=\"\"\nFLANNEL_MTU=''\nFLANNEL_IPMASQ= # none\n", bare},
		"no MTU, no masq":  {"FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\n", bare},
		"several networks": {"FLANNEL_NETWORK=10.5.0.0/16, 10.6.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n", two},
		"host bits":        {"FLANNEL_NETWORK=10.5.1.2/16\nFLANNEL_SUBNET=10.5.29.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n", one},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(test.text), "subnet.env")
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	const good = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.29.1/24\n"
	for _, test := range []struct{ text, want string }{
		{good + "FLANNEL_MTU=12x", `subnet file f.env: line 3: FLANNEL_MTU is "12x", want a number of bytes from 68 to 65535, such as 1450`},
		{good + "FLANNEL_MTU=67", `line 3: FLANNEL_MTU is "67", want a number of bytes`},
		{good + "FLANNEL_MTU=65536", `line 3: FLANNEL_MTU is "65536", want a number of bytes`},
		{good + "\n# c\nFLANNEL_IPMASQ=yes", `line 5: FLANNEL_IPMASQ is "yes", want true or false`},
		{"FLANNEL_NETWORK=10.5.0.0\n", `line 1: FLANNEL_NETWORK is "10.5.0.0", want one or more IPv4 networks separated by commas, such as 10.5.29.0/24`},
		{"FLANNEL_NETWORK=10.5.0.0/16,\n", `line 1: FLANNEL_NETWORK is "10.5.0.0/16,", want one or more IPv4 networks`},
		{"FLANNEL_NETWORK=fd00:5::/56\n", `line 1: FLANNEL_NETWORK is "fd00:5::/56", want one or more IPv4 networks`},
		{"FLANNEL_SUBNET=10.5.29.1/33\n", `line 1: FLANNEL_SUBNET is "10.5.29.1/33", want the node's IPv4 address and its subnet's length, such as 10.5.29.1/24`},
		{"FLANNEL_SUBNET=10.5.29.1/24,10.5.30.1/24\n", `line 1: FLANNEL_SUBNET is "10.5.29.1/24,10.5.30.1/24", want the node's IPv4 address`},
		{"FLANNEL_IPV6_SUBNET=10.5.29.1/24\n", `line 1: FLANNEL_IPV6_SUBNET is "10.5.29.1/24", want the node's IPv6 address and its subnet's length, such as fd00:5:0:1d::1/64`},
		{"FLANNEL_IPV6_SUBNET=::ffff:10.5.29.1/120\n", `want the node's IPv6 address`},
		{"FLANNEL_SUBNET=\"10.5.29.1/24\n", `line 1: FLANNEL_SUBNET is "\"10.5.29.1/24", want one value, in a pair of " or without`},
		{"FLANNEL_SUBNET='10.5.29.1/24' or so\n", `want one value, in a pair of ' or without`},
		{good + "FLANNEL_MTU 1450\n", `line 3: "FLANNEL_MTU 1450" is not an assignment, want KEY=VALUE`},
		{good + "set FLANNEL_MTU=1450\n", `line 3: "set FLANNEL_MTU=1450" is not an assignment, want KEY=VALUE`},
		{good + "=1450\n", `line 3: "=1450" is not an assignment, want KEY=VALUE`},
		{"", `subnet file f.env: neither FLANNEL_SUBNET nor FLANNEL_IPV6_SUBNET is set, want at least one, such as FLANNEL_SUBNET=10.5.29.1/24`},
		{"FLANNEL_NETWORK=10.5.0.0/16\n", "subnet file f.env: FLANNEL_NETWORK is set and FLANNEL_SUBNET is not, want both or neither"},
		{good + "FLANNEL_IPV6_SUBNET=fd00:5:0:1d::1/64\n", "FLANNEL_IPV6_SUBNET is set and FLANNEL_IPV6_NETWORK is not"},
		{"FLANNEL_SUBNET=" + strings.Repeat("1", 1000), `FLANNEL_SUBNET is "` + strings.Repeat("1", 80) + `", want`},
	} {
		_, err := Parse([]byte(test.text), "f.env")
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q:\n got %v\nwant %s", test.text, err, test.want)
		}
	}
}

func TestReadFileMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	_, err := Read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want one that matches fs.ErrNotExist", err)
	}
	for _, want := range []string{path, "selvaged writes it once this node has a lease"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error is %q, want it to say %q", err, want)
		}
	}
}

func TestReadFileUnreadable(t *testing.T) {
	dir := t.TempDir() // opens and cannot be read, even by root
	_, err := Read(dir)
	if _, ok := errors.AsType[*fs.PathError](err); !ok || errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want a PathError", err)
	}
}

// wantOnly fails unless dir holds just the named files.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !reflect.DeepEqual(got, names) {
		t.Errorf("%s holds %q, want %q", dir, got, names)
	}
}

func TestWriteFile(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o022)) // what is usual, whoever runs the test
	dir := filepath.Join(t.TempDir(), "run", "flannel")
	path := filepath.Join(dir, "subnet.env")
	files := goldenFiles()
	var before os.FileInfo
	for i, name := range []string{"ipv4", "dual", "ipv6"} {
		if err := Write(path, files[name]); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, files[name]) {
			t.Errorf("%s: read back as %+v, want %+v", name, got, files[name])
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o644 {
			t.Errorf("%s: mode is %v, want 0644", name, info.Mode())
		}
		if i > 0 && os.SameFile(before, info) {
			t.Errorf("%s: written in place, want a new file by rename", name)
		}
		before = info
		wantOnly(t, dir, "subnet.env")
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("directory: %v, %v, want mode 0755", info.Mode(), err)
	}

	if err := Write(path, files["ipv6"]); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || !os.SameFile(before, info) {
		t.Errorf("the same content was written again (%v)", err)
	}
}

func TestWriteFileRefusesWhatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "subnet.env")
	good := goldenFiles()["ipv4"]
	tooLarge, empty := good, File{MTU: 1450}
	tooLarge.MTU = 70000
	for _, f := range []File{tooLarge, empty} {
		if err := Write(path, f); err == nil {
			t.Errorf("%+v was written", f)
		}
	}
	wantOnly(t, dir)
}

func TestWriteFileFails(t *testing.T) {
	f := goldenFiles()["ipv4"]

	t.Run("at the rename", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "subnet.env")
		if err := os.MkdirAll(filepath.Join(path, "content"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := Write(path, f); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want an error that names %s", err, path)
		}
		wantOnly(t, dir, "subnet.env")
	})

	t.Run("at the directory", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Write(filepath.Join(file, "subnet.env"), f); err == nil {
			t.Error("no error where the directory is a file")
		}
	})

	t.Run("at the temporary file", func(t *testing.T) {
		dir := t.TempDir()
		if err := Write(filepath.Join(dir, strings.Repeat("n", 255)), f); err == nil { // room for the name, none for ".*"
			t.Error("no error where the temporary file cannot be made")
		}
		wantOnly(t, dir)
	})
}

func FuzzParse(f *testing.F) {
	for _, file := range goldenFiles() {
		f.Add(file.Marshal())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data, "f.env")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "subnet file f.env: ") {
				t.Fatalf("error does not name the file: %v", err)
			}
			return
		}
		again, err := Parse(file.Marshal(), "again.env")
		if err != nil {
			t.Fatalf("%+v is written as what cannot be read: %v", file, err)
		}
		if !reflect.DeepEqual(again, file) {
			t.Fatalf("%+v is read back as %+v", file, again)
		}
	})
}
