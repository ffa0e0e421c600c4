package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// unpack reads an archive as the kernel does (init/initramfs.c): names, modes and contents, in their order.
func unpack(t *testing.T, b []byte) (files []string) {
	t.Helper()
	const header = 110
	field := func(i int) int {
		n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	align := func(n int) int { return (n + 3) &^ 3 }
	for {
		if len(b) < header || string(b[:6]) != "070701" {
			t.Fatalf("no header of an entry after %q", files)
		}
		size, length := field(6), field(11)
		name := string(b[header : header+length-1])
		if b[header+length-1] != 0 {
			t.Fatalf("the name %q does not end with a zero byte", name)
		}
		if name == "TRAILER!!!" {
			return files
		}
		data := b[align(header+length):][:size]
		files = append(files, fmt.Sprintf("%s %#o %d %s", name, field(1), field(4), data))
		b = b[align(header+length)+align(size):]
	}
}

func TestArchive(t *testing.T) {
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, []byte("from the machine"), 0o600); err != nil {
		t.Fatal(err)
	}
	var a Archive
	a.Dir("/proc")
	a.File("/usr/bin/program", source)
	a.Link("/bin", "usr/bin")
	for i := range 4 { // every length of padding
		a.Data(fmt.Sprintf("/d/%*d", i+1, i), []byte("1234"[:i]))
	}
	var b bytes.Buffer
	if err := a.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bin 0120777 1 usr/bin", "d 040755 2 ", "d/   3 0100755 1 123", "d/  2 0100755 1 12", "d/ 1 0100755 1 1", "d/0 0100755 1 ",
		"proc 040755 2 ", "usr 040755 2 ", "usr/bin 040755 2 ", "usr/bin/program 0100755 1 from the machine",
	}
	if got := unpack(t, b.Bytes()); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}

	a.File("/missing", source+".missing")
	if err := a.Write(&b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
