package subnettest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/selvage-net/selvage/subnet/testdata/hostile"
)

// What a hostile record may need to be bad; see [Record.Needs].
const (
	NeedsPeers = "peers" // an older lease of [Peers]
	NeedsNode  = "node"  // to be on the node of [Rules], with its addresses and its underlay
)

// Record is a hostile record: what is stored, and why it is bad.
type Record struct {
	Key   string // below <prefix>/subnets/; any bytes
	Value []byte
	Why   string // what the reason that is given must contain
	Needs string // what it takes for the record to be bad, besides [Config]; empty: nothing
}

// line is a record in a file. Bytes that are not UTF-8 are in base64.
type line struct {
	Key     string `json:"key,omitempty"`
	Key64   []byte `json:"key64,omitempty"`
	Value   string `json:"value,omitempty"`
	Value64 []byte `json:"value64,omitempty"`
	Why     string `json:"why"`
	Needs   string `json:"needs,omitempty"`
}

// Hostile returns the corpus. No two records have the same key, and none is good or bad because another is there, so
// any part of them can be stored together.
func Hostile() ([]Record, error) {
	names, err := fs.Glob(hostile.Files, "*.jsonl")
	if err != nil {
		return nil, fmt.Errorf("list the hostile corpus: %w", err)
	}
	var records []Record
	for _, name := range names {
		data, err := hostile.Files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the hostile corpus: %w", err)
		}
		file, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		records = append(records, file...)
	}
	return records, nil
}

func parse(data []byte) (records []Record, err error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		r := Record{Key: l.Key, Value: []byte(l.Value), Why: l.Why, Needs: l.Needs}
		if l.Key64 != nil {
			r.Key = string(l.Key64)
		}
		if l.Value64 != nil {
			r.Value = l.Value64
		}
		records = append(records, r)
	}
	return records, lines.Err()
}
