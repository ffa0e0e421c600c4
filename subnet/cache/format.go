package cache

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	magic   = "selvage-leases "
	version = 1
)

// file is what [encode] writes to: the first line is known last.
type file interface {
	io.Writer
	io.WriterAt
}

// encode writes the file's content.
func encode(f file, s Snapshot) error {
	header := appendHeader(nil, version, [sha256.Size]byte{}) // to be filled in
	if _, err := f.Write(header); err != nil {
		return err
	}
	sum, size, out := newChecksum(version), len(header), bufio.NewWriter(f)
	write := func(b []byte) error {
		if size += len(b); size > maxSize {
			return fmt.Errorf("they take more than %d bytes", maxSize)
		}
		sum.Write(b)
		_, err := out.Write(b)
		return err
	}
	line := appendFacts(nil, s)
	if err := write(line); err != nil {
		return err
	}
	all := []iter.Seq[Record]{slices.Values(s.Records)}
	if s.More != nil {
		all = append(all, s.More)
	}
	for _, records := range all {
		for r := range records {
			line = appendRecord(line[:0], r)
			if err := write(line); err != nil {
				return err
			}
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := f.WriteAt(appendHeader(nil, version, [sha256.Size]byte(sum.Sum(nil))), 0)
	return err
}

// appendFacts appends all lines but the first and those of the records.
func appendFacts(b []byte, s Snapshot) []byte {
	b = append(appendTime(append(b, "written "...), s.Written), '\n')
	b = fmt.Appendf(b, "store %016x %d\n", s.Cluster, s.Revision)
	if s.Config != nil {
		b = append(appendText(append(b, "config "...), s.Config), '\n')
	}
	if s.Own != "" {
		b = appendName(append(b, "own "...), s.Own)
		b = append(appendTime(append(b, ' '), s.OwnExpires), '\n')
	}
	return b
}

func appendRecord(b []byte, r Record) []byte {
	if r.Name == r.Key {
		b = append(b, "lease "...)
	} else {
		b = append(appendName(append(b, "named "...), r.Name), ' ')
	}
	b = appendName(b, r.Key)
	for _, n := range []int64{r.Order, r.Version, r.LeaseID} {
		b = strconv.AppendInt(append(b, ' '), n, 10)
	}
	return append(appendText(append(b, ' '), r.Value), '\n')
}

// appendHeader appends the first line. Files of all versions are to begin with one of this form, whatever follows: so a
// reader that is too old can tell one from a damaged file.
func appendHeader(b []byte, version int, sum [sha256.Size]byte) []byte {
	b = strconv.AppendInt(append(b, magic...), int64(version), 10)
	return append(hex.AppendEncode(append(b, ' '), sum[:]), '\n')
}

// newChecksum begins a checksum over all but the first line. It covers the version too, so that a flipped bit there
// does not turn a damaged file into a newer one.
func newChecksum(version int) hash.Hash {
	h := sha256.New()
	fmt.Fprintf(h, "%s%d\n", magic, version)
	return h
}

func checksum(version int, body []byte) [sha256.Size]byte {
	h := newChecksum(version)
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// decode is the inverse of encode. The records' values are parts of data. The errors match ErrDamaged or ErrVersion.
func decode(data []byte) (Snapshot, error) {
	if len(data) > maxSize {
		return Snapshot{}, fmt.Errorf("%w: larger than %d bytes", ErrDamaged, maxSize)
	}
	header, body, _ := bytes.Cut(data, []byte("\n"))
	rest, ok := bytes.CutPrefix(header, []byte(magic))
	if !ok {
		return Snapshot{}, fmt.Errorf("%w: does not begin with %q", ErrDamaged, magic)
	}
	number, _, _ := strings.Cut(string(rest), " ")
	found, err := strconv.Atoi(number)
	if err != nil || found < 1 {
		return Snapshot{}, fmt.Errorf("%w: version %q", ErrDamaged, number)
	}
	// The header is compared as text: one fact, one way to write it.
	if !bytes.HasPrefix(data, appendHeader(nil, found, checksum(found, body))) {
		return Snapshot{}, fmt.Errorf("%w: the checksum is another", ErrDamaged)
	}
	if found > version {
		return Snapshot{}, fmt.Errorf("%w: the format is %d, this one knows up to %d", ErrVersion, found, version)
	}
	s, err := decodeBody(body)
	if err != nil {
		return Snapshot{}, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return s, nil
}

// decodeBody decodes what follows the first line.
func decodeBody(body []byte) (s Snapshot, err error) {
	if n := bytes.Count(body, []byte("\nlease ")) + bytes.Count(body, []byte("\nnamed ")); n > 0 {
		s.Records = make([]Record, 0, n)
	}
	for line := 2; len(body) > 0; line++ {
		text, rest, ended := bytes.Cut(body, []byte("\n"))
		if !ended {
			return s, fmt.Errorf("line %d does not end", line)
		}
		body = rest
		name, text, _ := bytes.Cut(text, []byte(" "))
		if err := s.take(name, text); err != nil {
			return s, fmt.Errorf("line %d: %w", line, err)
		}
	}
	return s, nil
}

// take takes in one line. Of a line that comes twice the last counts; encode writes no such file.
func (s *Snapshot) take(name, text []byte) (err error) {
	switch string(name) {
	case "written":
		s.Written, err = parseTime(string(text))
	case "store":
		cluster, revision, _ := strings.Cut(string(text), " ")
		if s.Cluster, err = strconv.ParseUint(cluster, 16, 64); err == nil {
			s.Revision, err = strconv.ParseInt(revision, 10, 64)
		}
	case "config":
		s.Config, err = parseText(text)
	case "own":
		at := bytes.LastIndexByte(text, ' ')
		if at < 0 {
			return fmt.Errorf("no expiry")
		}
		if s.Own, err = parseName(text[:at]); err == nil {
			s.OwnExpires, err = parseTime(string(text[at+1:]))
		}
	case "lease", "named":
		var r Record
		if r, err = parseRecord(text, string(name) == "named"); err == nil {
			s.Records = append(s.Records, r)
		}
	default:
		err = fmt.Errorf("unknown %q", name)
	}
	return err
}

func parseRecord(text []byte, named bool) (r Record, err error) {
	if named {
		if r.Name, text, err = cutName(text); err != nil {
			return r, fmt.Errorf("name: %w", err)
		}
	}
	if r.Key, text, err = cutName(text); err != nil {
		return r, fmt.Errorf("key: %w", err)
	}
	if !named {
		r.Name = r.Key
	}
	for _, n := range []*int64{&r.Order, &r.Version, &r.LeaseID} {
		number, rest, ok := bytes.Cut(text, []byte(" "))
		if !ok {
			return r, fmt.Errorf("too few numbers")
		}
		if *n, err = strconv.ParseInt(string(number), 10, 64); err != nil {
			return r, err
		}
		text = rest
	}
	if r.Value, err = parseText(text); err != nil {
		return r, fmt.Errorf("value: %w", err)
	}
	return r, nil
}

// cutName takes a name or a key, and the space that follows it, off the beginning of text.
func cutName(text []byte) (name string, rest []byte, err error) {
	at := bytes.IndexByte(text, ' ')
	if len(text) > 0 && text[0] == '"' { // with a space in it, perhaps
		quoted, err := strconv.QuotedPrefix(string(text))
		if err != nil {
			return "", nil, err
		}
		at = len(quoted)
	}
	if at < 0 {
		return "", nil, fmt.Errorf("nothing follows it")
	}
	name, err = parseName(text[:at])
	return name, bytes.TrimPrefix(text[at:], []byte(" ")), err
}

// appendText appends a text that is the last on its line.
func appendText(b, text []byte) []byte {
	if bytes.HasPrefix(text, []byte(`"`)) || bytes.IndexByte(text, '\n') >= 0 {
		return strconv.AppendQuote(b, string(text))
	}
	return append(b, text...)
}

func parseText(text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte(`"`)) {
		return text[:len(text):len(text)], nil // appending to it does not write into the next line
	}
	s, err := strconv.Unquote(string(text))
	if err != nil {
		return nil, fmt.Errorf("badly quoted: %.40s", text)
	}
	return []byte(s), nil
}

// appendName appends a name or a key, which is not the last on its line.
func appendName(b []byte, name string) []byte {
	if name == "" || name[0] == '"' || strings.ContainsAny(name, " \n") {
		return strconv.AppendQuote(b, name)
	}
	return append(b, name...)
}

func parseName(text []byte) (string, error) {
	name, err := parseText(text)
	return string(name), err
}

// appendTime appends a time, the zero one as "-".
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, '-')
	}
	return t.UTC().AppendFormat(b, time.RFC3339Nano)
}

func parseTime(text string) (time.Time, error) {
	if text == "-" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if t = t.UTC(); err == nil && (t.Year() < 1 || t.Year() > 9999) { // what an offset can make of a year at the edge
		err = fmt.Errorf("the year of %q cannot be written", text)
	}
	return t, err
}
