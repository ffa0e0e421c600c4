package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selvage-net/selvage/subnet"
)

// small is a snapshot with one of everything.
func small() Snapshot {
	return Snapshot{
		Written: time.Date(2026, 8, 6, 12, 0, 0, 5, time.UTC), Cluster: 0xcdf818194e3a8c32, Revision: 1234,
		Config: []byte(`{"Network":"10.5.0.0/16"}`),
		Records: []Record{
			{Name: "10.5.29.0-24", Key: "10.5.29.0-24", Value: []byte(`{"PublicIP":"192.0.2.1"}`), Order: 12, Version: 34, LeaseID: 7587862094},
			{Name: "a \"key\"\nof\tsomebody's\xff", Key: "a \"key\"\nof\tsomebody's\xff", Value: []byte("\"\n\xfe"), Order: 1, Version: 1},
			{Name: "", Key: "", Value: []byte{}, Order: 2, Version: 2},
		},
		Own: "10.5.29.0-24", OwnExpires: time.Date(2026, 8, 7, 12, 0, 0, 0, time.UTC),
	}
}

// golden is what the file of small is below its first line. A change of it is a new version of the format.
const golden = `written 2026-08-06T12:00:00.000000005Z
store cdf818194e3a8c32 1234
config {"Network":"10.5.0.0/16"}
own 10.5.29.0-24 2026-08-07T12:00:00Z
lease 10.5.29.0-24 12 34 7587862094 {"PublicIP":"192.0.2.1"}
lease "a \"key\"\nof\tsomebody's\xff" 1 1 0 "\"\n\xfe"
lease "" 2 2 0 
`

func TestFormat(t *testing.T) {
	data := encoded(small())
	header, body, _ := strings.Cut(string(data), "\n")
	if body != golden {
		t.Errorf("the file is\n%s\nwant\n%s", body, golden)
	}
	if want := "selvage-leases 1 59f29a7dfc71cc77c2bdcc9b8075701a16ace4b9bbcb54af6198ece58b5942d6"; header != want {
		t.Errorf("it begins with\n%s\nwant\n%s", header, want)
	}
}

// TestFormat1 reads a file as it was written before records had a name of their own.
func TestFormat1(t *testing.T) {
	s, err := Read(filepath.Join("testdata", "format1"))
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Config) != `{"Network":"10.5.0.0/16"}` || s.Cluster != 0xcdf818194e3a8c32 || s.Revision != 1234 ||
		s.Own != "10.5.29.0-24&fd00:5:0:1d::-64" || !s.OwnExpires.Equal(time.Date(2026, 8, 7, 12, 0, 0, 0, time.UTC)) ||
		!s.Written.Equal(time.Date(2026, 11, 28, 12, 0, 0, 5, time.UTC)) {
		t.Errorf("read %+v", s)
	}
	all := s.Decoded()
	if len(all) != 7 {
		t.Fatalf("%d records, want 7", len(all))
	}
	own := subnet.Record{
		Lease: subnet.Lease{
			Endpoints: [2]subnet.Endpoint{
				{
					Subnet: netip.MustParsePrefix("10.5.29.0/24"), PublicIP: netip.MustParseAddr("192.0.2.1"),
					Data: `{"VNI":1,"VtepMAC":"0e:00:00:00:00:01"}`,
				},
				{
					Subnet: netip.MustParsePrefix("fd00:5:0:1d::/64"), PublicIP: netip.MustParseAddr("2001:db8::1"),
					Data: `{"VNI":1,"VtepMAC":"0e:00:00:00:00:02"}`,
				},
			},
			BackendType: "vxlan", InstanceID: "0123456789abcdef", NodeName: "this node",
		},
		Name: s.Own, Order: 12, Version: 34, LeaseID: 7587862094,
	}
	if all[2] != own {
		t.Errorf("its own lease is %+v\nwant %+v", all[2], own)
	}
	if r := all[3]; r.Bad != nil || r.NodeName != "" || r.LeaseID != 0 || r.Endpoints[subnet.IPv4].PublicIP.String() != "192.0.2.30" {
		t.Errorf("a reservation is %+v", r)
	}
	for i, name := range []string{"10.5.31.0-24", "a \"key\"\nof\tsomebody's\xff", ""} {
		if r := all[4+i]; r.Name != name || r.Bad == nil || r.Has(subnet.IPv4) != (i == 0) {
			t.Errorf("a malformed record is %+v, want %q", r, name)
		}
	}
	for i, r := range all[:4] { // and what it says can be written again
		again, err := Encode(r, nil)
		if err != nil || again.Decode() != r || again.Key != s.Records[i].Key {
			t.Errorf("%+v is written as %+v, %v", r, again, err)
		}
	}
	// The format of other records is the same to a byte.
	want, err := os.ReadFile(filepath.Join("testdata", "format1"))
	if err != nil {
		t.Fatal(err)
	}
	if got := encoded(s); !bytes.Equal(got, want) {
		t.Errorf("written again it is\n%s\nwant\n%s", got, want)
	}
}

func TestNamedRecord(t *testing.T) {
	key := "10.5.30.0-24"
	r := subnet.DecodeRecord(key, []byte(`{"PublicIP":"192.0.2.30","PublicIPv6":null,"BackendType":"vxlan"}`))
	r.Name, r.Order, r.Version = "node-7", 1201, 1300
	encodedRecord, err := Encode(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	line := string(appendRecord(nil, encodedRecord))
	want := `named node-7 10.5.30.0-24 1201 1300 0 {"PublicIP":"192.0.2.30","PublicIPv6":null,"BackendType":"vxlan"}` + "\n"
	if line != want {
		t.Errorf("the line is %s, want %s", line, want)
	}
	s, err := decode(encoded(Snapshot{Records: []Record{encodedRecord}}))
	if err != nil || len(s.Records) != 1 || s.Decoded()[0] != r {
		t.Errorf("read %+v, %v; want %+v", s.Decoded(), err, r)
	}
	r.Bad = errors.New("malformed")
	if _, err := Encode(r, nil); !errors.Is(err, r.Bad) {
		t.Errorf("a malformed record is written: %v", err)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, want := range map[string]Snapshot{
		"one of everything":      small(),
		"nothing":                {},
		"an empty config":        {Config: []byte{}},
		"a config of many lines": {Config: []byte("{\n  \"Network\": \"10.5.0.0/16\"\n}\n")},
		"a reservation":          {Own: "10.5.29.0-24"},
		"an own key like no key": {Own: "a - b"},
		"another time zone":      {Written: time.Date(2026, 8, 6, 12, 0, 0, 0, time.FixedZone("", 3600))},
		"negative numbers":       {Revision: -1, Records: []Record{{Name: "k", Key: "k", Value: []byte("v"), Order: -1, Version: -2, LeaseID: -3}}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "missing", "too", "leases")
			for range 2 { // the second time in the place of the first
				if err := Write(path, want); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, want)
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("the file is %v, %v", info, err)
			}
			if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
				t.Errorf("in the directory is %v, %v", left, err)
			}
		})
	}
}

func same(t *testing.T, got, want Snapshot) {
	t.Helper()
	for _, at := range []*time.Time{&got.Written, &got.OwnExpires, &want.Written, &want.OwnExpires} {
		*at = at.UTC()
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read  %+v\nwrote %+v", got, want)
	}
}

func TestAnyBytesComeBack(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	// Bytes that mean something in the format come often.
	text := func() []byte {
		b := make([]byte, r.IntN(8))
		for i := range b {
			b[i] = "\n \"\\-a\x00\xff"[r.IntN(8)]
		}
		return b
	}
	for range 2000 {
		want := Snapshot{Config: text(), Own: string(text()), Records: []Record{{Name: string(text()), Key: string(text()), Value: text()}}}
		if want.Own != "" {
			want.OwnExpires = time.Unix(r.Int64N(1e10), 0)
		}
		got, err := decode(encoded(want))
		if err != nil {
			t.Fatalf("seed %d: %+v: %v", seed, want, err)
		}
		same(t, got, want)
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	data := encoded(small())
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			if _, err := decode(data); !errors.Is(err, ErrDamaged) {
				t.Errorf("bit %d of byte %d, now %q: %v", bit, i, data[i], err)
			}
			data[i] ^= 1 << bit
		}
	}
	if _, err := decode(data); err != nil {
		t.Error(err)
	}
}

func TestEveryTornFileIsNoticed(t *testing.T) {
	data := encoded(small())
	other := small()
	other.Revision++
	second := encoded(other)
	check := func(what string, data []byte) {
		t.Helper()
		if _, err := decode(data); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range data {
		check(fmt.Sprintf("%d bytes of it", i), data[:i])
		check(fmt.Sprintf("zeros from byte %d", i), append(bytes.Clone(data[:i]), make([]byte, len(data)-i)...))
		check(fmt.Sprintf("without byte %d", i), append(bytes.Clone(data[:i]), data[i+1:]...))
		torn := append(bytes.Clone(data[:i]), second[i:]...)
		if !bytes.Equal(torn, data) && !bytes.Equal(torn, second) {
			check(fmt.Sprintf("another from byte %d", i), torn)
		}
	}
	check("twice", append(bytes.Clone(data), data...))
	check("too large", make([]byte, maxSize+1))
}

// sealed puts a true header before a body.
func sealed(version int, body string) []byte {
	return append(appendHeader(nil, version, checksum(version, []byte(body))), body...)
}

func TestBadFilesAreToldApart(t *testing.T) {
	for _, c := range []struct {
		name string
		data string
		is   error
		says string
	}{
		{"something else", "{}", ErrDamaged, `does not begin with "selvage-leases "`},
		{"newer", string(sealed(2, "who knows")), ErrVersion, "the format is 2, this one knows up to 1"},
		{"newer and damaged", strings.Replace(string(sealed(2, "who knows")), "who", "how", 1), ErrDamaged, "checksum"},
		{"version 0", string(sealed(0, golden)), ErrDamaged, `version "0"`},
		{"no version", "selvage-leases  x\n", ErrDamaged, `version ""`},
		{"a version that is spelled in another way", strings.Replace(string(encoded(small())), " 1 ", " 01 ", 1), ErrDamaged, "checksum"},
		{"a checksum that is spelled in another way", strings.ToUpper(string(sealed(1, ""))), ErrDamaged, "does not begin"},
		{"a line of something", string(sealed(1, "store 0 0\nx y\n")), ErrDamaged, `line 3: unknown "x"`},
		{"a line that does not end", string(sealed(1, "store 0 0")), ErrDamaged, "line 2 does not end"},
		{"a time", string(sealed(1, "written yesterday\n")), ErrDamaged, "line 2: parsing time"},
		{"a time at the edge", string(sealed(1, "written 0000-01-01T00:00:00+23:59\n")), ErrDamaged, "cannot be written"},
		{"a cluster", string(sealed(1, "store x 1\n")), ErrDamaged, "line 2: strconv"},
		{"a revision", string(sealed(1, "store 1\n")), ErrDamaged, "line 2: strconv"},
		{"a config", string(sealed(1, "config \"x\n")), ErrDamaged, "badly quoted"},
		{"no expiry", string(sealed(1, "own x\n")), ErrDamaged, "no expiry"},
		{"an own key", string(sealed(1, "own \"x -\n")), ErrDamaged, "badly quoted"},
		{"a record without numbers", string(sealed(1, "lease x\n")), ErrDamaged, "key: nothing follows it"},
		{"a record with a word for a number", string(sealed(1, "lease x 1 one 1 \n")), ErrDamaged, "strconv"},
		{"a record with two numbers", string(sealed(1, "lease x 1 2\n")), ErrDamaged, "too few numbers"},
		{"a record with a bad key", string(sealed(1, "lease \"x 1 2 3 \n")), ErrDamaged, "key"},
		{"a record with a bad value", string(sealed(1, "lease x 1 2 3 \"\n")), ErrDamaged, "value: badly quoted"},
		{"empty", "", ErrDamaged, "does not begin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "leases")
			if err := os.WriteFile(path, []byte(c.data), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Read(path)
			if !errors.Is(err, c.is) || errors.Is(err, ErrDamaged) != (c.is == ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the error is %v, want one that is: %v", err, c.is)
			}
			if err != nil && (!strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path)) {
				t.Errorf("the error is %v, want one that says %s", err, c.says)
			}
		})
	}
}

// TestWhatCannotBeReadIsNotDamaged: whoever sets a damaged file aside may not do so with one that he may only not read.
func TestWhatCannotBeReadIsNotDamaged(t *testing.T) {
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, loop} {
		_, err := Read(path)
		if err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, ErrVersion) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range []string{filepath.Join(dir, "no"), filepath.Join(dir, "no", "such", "directory")} {
		if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestWhatCannotBeWrittenIsSaid(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := Write(file, small()); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		filepath.Join(file, "below"): file + ": not a directory",
		dir:                          "write the cached leases to " + dir,
	} {
		if err := Write(path, small()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := Write(file, Snapshot{Config: make([]byte, maxSize)}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file that would not be read: %v", err)
	}
	if got, err := Read(file); err != nil {
		t.Errorf("what was there before: %v", err)
	} else {
		same(t, got, small())
	}
}

func TestSetAsideKeepsOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases")
	for _, content := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		aside, err := SetAside(path)
		if err != nil || aside != path+".damaged" {
			t.Fatalf("%q, %v", aside, err)
		}
		if got, err := os.ReadFile(aside); string(got) != content {
			t.Errorf("set aside: %q, %v", got, err)
		}
		if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("and it is still there: %v", err)
		}
	}
	if _, err := SetAside(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
}

// large is a snapshot with n leases as vxlan nodes write them.
func large(n int) Snapshot {
	s := small()
	s.Records = nil
	for i := range n {
		key := fmt.Sprintf("10.%d.%d.0-24", 5+i/256, i%256)
		s.Records = append(s.Records, Record{
			Name: key, Key: key,
			Value: fmt.Appendf(nil, `{"PublicIP":"172.31.%d.%d","PublicIPv6":null,"BackendType":"vxlan",`+
				`"BackendData":{"VNI":1,"VtepMAC":"0e:00:00:00:%02x:%02x"},"InstanceID":"%032x","NodeName":"node%d"}`, i/256, i%256, i/256, i%256, i, i),
			Order: int64(100_000 + i), Version: int64(200_000 + i), LeaseID: 7587862094000000000 + int64(i),
		})
	}
	return s
}

// memory is a file in memory.
type memory struct{ data []byte }

func (m *memory) Write(b []byte) (int, error) { m.data = append(m.data, b...); return len(b), nil }

func (m *memory) WriteAt(b []byte, at int64) (int, error) { return copy(m.data[at:], b), nil }

// encoded is what a file with s holds.
func encoded(s Snapshot) []byte {
	var m memory
	_ = encode(&m, s) // only a file fails, or what is too large for one
	return m.data
}

// TestMoreIsWrittenToo: what is only asked for while it is written comes back as what was there from the start.
func TestMoreIsWrittenToo(t *testing.T) {
	whole := large(10)
	parted := whole
	parted.Records, parted.More = whole.Records[:4], slices.Values(whole.Records[4:])
	if got, want := encoded(parted), encoded(whole); !bytes.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestManyLeasesCostLittle(t *testing.T) {
	const n, mostBytes, mostAllocated = 5000, 1_500_000, 4 << 20
	s, path := large(n), filepath.Join(t.TempDir(), "leases")
	allocated := func(do func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if got := allocated(func() {
		if err := Write(path, s); err != nil {
			t.Error(err)
		}
	}); got > mostAllocated {
		t.Errorf("writing allocates %d bytes", got)
	}
	if got := allocated(func() {
		if s, err := Read(path); err != nil || len(s.Records) != n {
			t.Errorf("%d records, %v", len(s.Records), err)
		}
	}); got > mostAllocated {
		t.Errorf("reading allocates %d bytes", got)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > mostBytes {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

func BenchmarkWrite(b *testing.B) {
	s, path := large(5000), filepath.Join(b.TempDir(), "leases")
	b.ReportAllocs()
	for b.Loop() {
		if err := Write(path, s); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size()), "file-bytes")
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "leases")
	if err := Write(path, large(5000)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(path); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzRead: whatever the file holds, also behind a true checksum, is read or refused; and what is read can be written and
// read again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(golden))
	f.Add(encoded(small()))
	f.Add([]byte("lease \"\\u00e9\" 1 2 3 \"x\"\nown \"a b\" -\nwritten 0001-01-01T00:00:00Z\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, sealed(version, string(data))} {
			s, err := decode(file)
			if err != nil {
				if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
					t.Errorf("an error that says neither: %v", err)
				}
				continue
			}
			again, err := decode(encoded(s))
			if err != nil {
				t.Fatalf("%q is read, and not when it is written again: %v", file, err)
			}
			if again.Own == "" {
				s.OwnExpires = again.OwnExpires // of nothing
			}
			if !reflect.DeepEqual(normal(s), normal(again)) {
				t.Errorf("%q\nis read as  %+v\nand then as %+v", file, s, again)
			}
		}
	})
}

// normal makes what was read comparable: no records are no records.
func normal(s Snapshot) Snapshot {
	if len(s.Records) == 0 {
		s.Records = nil
	}
	if len(s.Config) == 0 {
		s.Config = nil
	}
	return s
}
