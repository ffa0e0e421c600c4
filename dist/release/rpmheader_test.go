package release

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

// Tags of an RPM's header (rpm, include/rpm/rpmtag.h).
const (
	tagName, tagVersion, tagRelease, tagSummary, tagDescription, tagBuildHost = 1000, 1001, 1002, 1004, 1005, 1007

	tagLicense, tagArch = 1014, 1022

	tagPostIn, tagPreUn, tagPostUn = 1024, 1025, 1026

	tagModes, tagTimes, tagFlags, tagOwners, tagGroups, tagDirs, tagNames, tagPaths = 1030, 1034, 1037, 1039, 1040,
		1116, 1117, 1118
)

// rpmHeader holds the entries of an RPM's header by tag: strings, or numbers.
type rpmHeader struct {
	texts   map[uint32][]string
	numbers map[uint32][]int
}

// readRPM reads the header of a package: after a lead of 96 bytes and the signature, which is a header too and is
// padded to 8 bytes (rpm, docs/manual/format_v4.md). A header has an index of tag, type, offset and count, and then the
// data.
func readRPM(data []byte) (h rpmHeader, err error) {
	if len(data) < 96 || !bytes.HasPrefix(data, []byte{0xed, 0xab, 0xee, 0xdb}) {
		return h, errors.New("no lead of an RPM")
	}
	at := 96
	for range 2 {
		at = (at + 7) / 8 * 8
		if h, at, err = readHeader(data, at); err != nil {
			return h, err
		}
	}
	return h, nil
}

func readHeader(data []byte, at int) (h rpmHeader, end int, err error) {
	if at+16 > len(data) || !bytes.HasPrefix(data[at:], []byte{0x8e, 0xad, 0xe8, 1}) {
		return h, 0, fmt.Errorf("no header at %d", at)
	}
	number := func(at int) int { return int(binary.BigEndian.Uint32(data[at:])) }
	entries, size := number(at+8), number(at+12)
	index, store := at+16, at+16+16*entries
	if end = store + size; end > len(data) {
		return h, 0, errors.New("the header is longer than the file")
	}
	h = rpmHeader{texts: map[uint32][]string{}, numbers: map[uint32][]int{}}
	for i := range entries {
		e := index + 16*i
		tag, kind, from, count := uint32(number(e)), number(e+4), store+number(e+8), number(e+12)
		for range count {
			switch kind {
			case 3:
				h.numbers[tag] = append(h.numbers[tag], int(binary.BigEndian.Uint16(data[from:])))
				from += 2
			case 4:
				h.numbers[tag] = append(h.numbers[tag], number(from))
				from += 4
			case 6, 8, 9: // a string, a list, and a translated one
				text, _, _ := bytes.Cut(data[from:end], []byte{0})
				h.texts[tag] = append(h.texts[tag], string(text))
				from += len(text) + 1
			}
		}
	}
	return h, end, nil
}

// text returns the only string of a tag.
func (h rpmHeader) text(t *testing.T, tag uint32) string {
	t.Helper()
	if len(h.texts[tag]) != 1 {
		t.Fatalf("tag %d is %q, want one string", tag, h.texts[tag])
	}
	return h.texts[tag][0]
}
