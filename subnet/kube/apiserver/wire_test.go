package apiserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// msg encodes a message: pairs of a field number, and a number, a string or a message.
func msg(pairs ...any) (b []byte) {
	for pair := range slices.Chunk(pairs, 2) {
		number := pair[0].(protowire.Number)
		switch v := pair[1].(type) {
		case int:
			b = protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), uint64(v))
		case string:
			b = protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), v)
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
		}
	}
	return b
}

// enveloped encodes an object's envelope.
func enveloped(kind string, raw []byte) []byte {
	return append([]byte(magic), msg(unknownTypeMeta, msg(typeMetaKind, kind), unknownRaw, raw)...)
}

func annotation(name, value string) []byte { return msg(mapKey, name, mapValue, value) }

// listOf encodes a list of metadata.
func listOf(items ...[]byte) []byte {
	raw := msg(listMetadata, msg(listMetaVersion, "9"))
	for _, i := range items {
		raw = append(raw, msg(listItems, i)...)
	}
	return enveloped("PartialObjectMetadataList", raw)
}

func meta(pairs ...any) []byte { return msg(objectMetadata, msg(pairs...)) }

// TestBadObjects: what is wrong with one object is in its Bad, and the others are there.
func TestBadObjects(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", MaxAnnotation+1)
	huge := make([]byte, MaxObject+1)
	good := meta(metaName, "good", metaVersion, "8", metaUID, "u", metaAnnotations, annotation(kept, strings.Repeat("x", MaxAnnotation)))
	c := answering(t, protobuf, 200, listOf(good,
		meta(metaName, "annotation", metaVersion, "7", metaAnnotations, annotation(kept, long)),
		meta(metaVersion, "7", metaAnnotations, annotation(kept, "\xff"), metaName, "utf8"),
		meta(metaName, "version", metaVersion, "7a"),
		meta(metaName, "negative", metaVersion, "-7"),
		meta(metaName, "cut", metaVersion, "7", metaAnnotations, []byte{0x0a, 0x7f}),
		meta(metaName, "large", metaVersion, "7", metaUID, "u", metaAnnotations, annotation(other, string(huge))),
		meta(metaVersion, "7"),
		meta(metaName, strings.Repeat("n", 254), metaVersion, "7"),
		[]byte{0xff}, nil,
		meta(metaName, "kind", metaUID, strings.Repeat("u", 129), metaVersion, "7"),
		msg(objectMetadata, "\x0a\x04last\x0f"),
		good,
	))
	c.decoder = newDecoder([]string{kept})
	want := []string{
		"good ", "annotation of more than 4096 bytes", "utf8 is not UTF-8", `version "7a" is no number`, `negative "-7" is no number`,
		"cut unexpected EOF", "large has more than 4194304 bytes", " without a name", " name of more than 253 bytes", " unexpected EOF", " without a name",
		"kind uid of more than 128 bytes", "last wire type", "good ",
	}
	var got []Object
	version, err := c.List(t.Context(), Nodes, ListOptions{}, func(p Page) error {
		got = append(got, p.Objects...)
		return nil
	})
	if err != nil || version != 9 || len(got) != len(want) {
		t.Fatalf("%d objects at %d, %v", len(got), version, err)
	}
	for i, o := range got {
		name, text, _ := strings.Cut(want[i], " ")
		if o.Name != name || (o.Bad == nil) != (text == "") || o.Bad != nil && !(errors.Is(o.Bad, ErrMalformed) && strings.Contains(o.Bad.Error(), text)) {
			t.Errorf("%d: %q: %v, want %q", i, o.Name, o.Bad, want[i])
		}
		if name != "" && name != "version" && name != "negative" && o.Version == 0 && name != "last" {
			t.Errorf("%s has no version", name)
		}
	}
	if o := got[0]; len(o.Annotations[kept]) != MaxAnnotation || o.UID != "u" || o.Version != 8 {
		t.Errorf("%+v", o)
	}
}

// TestBadLists: what is wrong with a list ends it.
func TestBadLists(t *testing.T) {
	t.Parallel()
	good := listOf(meta(metaName, "a", metaVersion, "1"))
	raw := func(raw []byte) []byte { return enveloped("PartialObjectMetadataList", raw) }
	for name, body := range map[string][]byte{
		"empty":             nil,
		"no magic":          []byte("{}"),
		"nothing":           []byte(magic),
		"cut":               good[:len(good)-1],
		"cut in a length":   append([]byte(magic), 0x12, 0xff),
		"other kind":        enveloped("PodList", msg(listMetadata, msg(listMetaVersion, "9"))),
		"no version":        raw(nil),
		"version at end":    raw(append(msg(listItems, meta(metaName, "a")), msg(listMetadata, msg(listMetaVersion, "9"))...)),
		"version":           raw(msg(listMetadata, msg(listMetaVersion, "x"))),
		"continue":          raw(msg(listMetadata, msg(listMetaVersion, "9", listMetaContinue, strings.Repeat("c", maxMeta+1)))),
		"encoded":           append(bytes.Clone(good), msg(unknownContentEncoding, "gzip")...),
		"group":             append(bytes.Clone(good), 0x0b),
		"number 0":          append(bytes.Clone(good), 0x00, 0x00),
		"long number":       append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 11)...),
		"item beyond":       raw([]byte{0x0a, 0x03, 0x12, 0x01, '9', 0x12, 0x05, 0x00}),
		"enormous":          append([]byte(magic), append([]byte{0x12}, protowire.AppendVarint(nil, 1<<63)...)...),
		"enormous item":     raw(append(msg(listMetadata, msg(listMetaVersion, "9")), append([]byte{0x12}, protowire.AppendVarint(nil, 1<<63)...)...)),
		"enormous, skipped": append([]byte(magic), append([]byte{0x2a}, protowire.AppendVarint(nil, 1<<62)...)...),
	} {
		_, err := answering(t, protobuf, 200, body).List(t.Context(), Nodes, ListOptions{}, func(Page) error { return nil })
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unknown := append(bytes.Clone(good), msg(protowire.Number(9), "x", protowire.Number(10), 7)...)
	unknown = append(unknown, 0x5d, 1, 2, 3, 4, 0x61, 1, 2, 3, 4, 5, 6, 7, 8) // fixed32, fixed64
	if got, _ := answering(t, protobuf, 200, unknown).listed(t, ListOptions{}); len(got) != 1 {
		t.Errorf("with unknown fields: %v", got)
	}
}

// TestListOfManyObjects: a server without an end is left.
func TestListOfManyObjects(t *testing.T) {
	t.Parallel()
	item := msg(listItems, meta(metaName, "a"))
	body := io.MultiReader(bytes.NewReader([]byte(magic)), bytes.NewReader(append([]byte{0x12}, protowire.AppendVarint(nil, 1<<40)...)),
		bytes.NewReader(msg(listMetadata, msg(listMetaVersion, "9"))), endless(item))
	count := 0
	err := newStream(body).list("", func(message) error { return nil }, func(message) error { count++; return nil })
	if !errors.Is(err, ErrMalformed) || count != maxObjects {
		t.Errorf("%d objects: %v", count, err)
	}
}

type endless []byte

func (e endless) Read(b []byte) (n int, err error) {
	for n+len(e) <= len(b) {
		n += copy(b[n:], e)
	}
	if n == 0 {
		return 0, io.ErrShortBuffer
	}
	return n, nil
}

// event encodes a frame of a watch.
func event(kind string, object []byte) []byte {
	e := msg(watchEventType, kind, watchEventObject, msg(rawExtensionRaw, object))
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(e))), e...)
}

func TestBadEvents(t *testing.T) {
	t.Parallel()
	partial := func(pairs ...any) []byte { return enveloped("PartialObjectMetadata", meta(pairs...)) }
	good := event("ADDED", partial(metaName, "good", metaVersion, "8"))
	for _, x := range []struct {
		name  string
		frame []byte
		want  error
		text  string
	}{
		{"empty", []byte{0, 0, 0, 0}, ErrMalformed, "no object in protobuf"},
		{"cut", good[:len(good)-1], io.ErrUnexpectedEOF, ""},
		{"cut in the length", []byte{0, 0}, io.ErrUnexpectedEOF, ""},
		{"other type", event("RENAMED", partial(metaName, "a", metaVersion, "9")), ErrMalformed, `event of type "RENAMED"`},
		{"no version", event("MODIFIED", partial(metaName, "a")), ErrMalformed, `MODIFIED of "a" without a version`},
		{"bookmark without a version", event("BOOKMARK", partial()), ErrMalformed, "a bookmark without a version"},
		{"older", event("MODIFIED", partial(metaName, "a", metaVersion, "7")), ErrRegressed, "version 7 after 8"},
		{"older bookmark", event("BOOKMARK", partial(metaVersion, "7")), ErrRegressed, "version 7 after 8"},
		{"410", event("ERROR", enveloped("Status", msg(statusMessage, "too old", statusReason, "Expired", statusCode, 410))), ErrExpired, "too old"},
		{"end", nil, ErrEnded, ""},
	} {
		var seen []Event
		err := answering(t, protobuf+";stream=watch", 200, append(bytes.Clone(good), x.frame...)).Watch(t.Context(), Nodes, WatchOptions{From: 3}, func(e Event) error {
			seen = append(seen, e)
			return nil
		})
		text := fmt.Sprint(err)
		if !errors.Is(err, x.want) || !strings.Contains(text, x.text) || strings.Contains(text, "%!") || len(seen) != 1 || seen[0].Object.Name != "good" {
			t.Errorf("%s: %v after %+v, want %v", x.name, err, seen, x.want)
		}
	}

	// One that is too large is reported by name, and the watch goes on.
	huge := event("MODIFIED", partial(metaName, "huge", metaVersion, "9", metaAnnotations, annotation(other, string(make([]byte, MaxObject)))))
	c := answering(t, protobuf, 200, slices.Concat(good, huge, event("DELETED", partial(metaName, "good", metaVersion, "10"))))
	var seen []string
	err := c.Watch(t.Context(), Nodes, WatchOptions{}, func(e Event) error {
		seen = append(seen, fmt.Sprintf("%d %s %d %t", e.Type, e.Object.Name, e.Version, e.Object.Bad != nil))
		return nil
	})
	if want := []string{"0 good 8 false", "1 huge 9 true", "2 good 10 false"}; err != ErrEnded || !slices.Equal(seen, want) {
		t.Errorf("%v, %v, want %v", seen, err, want)
	}
}

// TestNoStreamingLists: a server that has none rejects the request, or ignores what it does not know.
func TestNoStreamingLists(t *testing.T) {
	t.Parallel()
	s := standIn(t, kubetest.Options{NoStreamingLists: true})
	c := open(t, Options{URL: s.URL(), ServiceAccount: t.TempDir()})
	if err := c.watching(t, WatchOptions{Initial: true}).end(); !errors.Is(err, ErrNoInitial) {
		t.Errorf("1.33: %v", err)
	}
	old := slices.Concat(event("ADDED", enveloped("", meta(metaName, "a", metaVersion, "8"))), event("BOOKMARK", enveloped("", meta(metaVersion, "8"))))
	err := answering(t, protobuf, 200, old).Watch(t.Context(), Nodes, WatchOptions{Initial: true}, func(Event) error { return nil })
	if !errors.Is(err, ErrNoInitial) {
		t.Errorf("1.26: %v", err)
	}
}

func TestNodeDecoding(t *testing.T) {
	t.Parallel()
	d := newDecoder(nil)
	decode := func(pairs ...any) Node { return d.node(message{rest: append(meta(metaName, "a"), msg(pairs...)...)}) }
	if n := decode(nodeSpec, msg(specPodCIDR, "10.5.0.0/24")); n.Bad != nil || !slices.Equal(n.PodCIDRs, []string{"10.5.0.0/24"}) {
		t.Errorf("podCIDR alone: %+v", n)
	}
	if n := decode(nodeSpec, msg(specPodCIDR, "10.5.0.0/24", specPodCIDRs, "10.5.1.0/24")); !slices.Equal(n.PodCIDRs, []string{"10.5.1.0/24"}) {
		t.Errorf("both: %+v", n)
	}
	if n := d.node(message{rest: meta(metaName, "a", metaDeleted, msg(timeSeconds, 1), metaCreated, msg(timeSeconds, 1795935600, timeNanos, 5))}); !n.Deleting ||
		!n.Created.Equal(time.Unix(1795935600, 5)) {
		t.Errorf("times: %+v", n)
	}
	for name, n := range map[string]Node{
		"podCIDRs":  decode(nodeSpec, bytes.Repeat(msg(specPodCIDRs, "10.5.0.0/24"), maxPodCIDRs+1)),
		"podCIDR":   decode(nodeSpec, msg(specPodCIDRs, strings.Repeat("1", 1000))),
		"addresses": decode(nodeStatus, bytes.Repeat(msg(statusAddresses, msg(addressType, "a")), maxAddresses+1)),
		"condition": decode(nodeStatus, msg(statusConditions, []byte{0x0a, 9})),
		"spec":      decode(nodeSpec, []byte{0x0a, 9}),
	} {
		if n.Name != "a" || !errors.Is(n.Bad, ErrMalformed) {
			t.Errorf("%s: %v", name, n.Bad)
		}
	}
	for _, seconds := range []int{-1 << 62, 1 << 62, 0} {
		if n := d.node(message{rest: meta(metaName, "a", metaCreated, msg(timeSeconds, seconds))}); n.Bad != nil || !n.Created.IsZero() {
			t.Errorf("%d s: %+v", seconds, n)
		}
	}
}

// recorded returns what the stand-in answers.
func recorded(t testing.TB) (list, nodes, watch []byte) {
	s := kubetest.New(kubetest.Options{Bookmarks: time.Hour})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for i := range 3 {
		n := kubetest.Node{Name: fmt.Sprint("node-", i), PodCIDRs: []string{"10.5.0.0/24"}, Images: 2, Annotations: map[string]string{kept: "172.31.0.1", other: "x"},
			Conditions: []kubetest.Condition{{Type: NetworkUnavailable, Status: "False", LastHeartbeatTime: time.Unix(1e9, 0)}}}
		if _, err := s.Admin().CreateNode(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	get := func(query, accept string) []byte {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/v1/nodes"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", accept)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	defer http.DefaultClient.CloseIdleConnections()
	return get("", metadataOnly("PartialObjectMetadataList")), get("", protobuf),
		get("?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1", metadataOnly("PartialObjectMetadata"))
}

// FuzzList: no list makes the decoder panic, or hold more than it was given.
func FuzzList(f *testing.F) {
	list, nodes, _ := recorded(f)
	f.Add(list)
	f.Add(nodes)
	f.Add(listOf(meta(metaName, "a", metaVersion, "1"), nil, []byte{0xff}))
	d := newDecoder([]string{kept})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range []string{"PartialObjectMetadataList", "NodeList"} {
			l := listing[Node]{}
			_ = protobufCodec{}.list(bytes.NewReader(body), kind, l.meta, func(m message) error {
				n := d.node(m)
				if len(n.Name) > maxName || len(n.Annotations) > 1 || len(n.Annotations[kept]) > MaxAnnotation || len(n.PodCIDRs) > maxPodCIDRs || n.Version < 0 ||
					n.Name == "" && n.Bad == nil {
					t.Errorf("%+v", n)
				}
				return nil
			})
		}
	})
}

// FuzzWatch: the same for watches.
func FuzzWatch(f *testing.F) {
	_, _, watched := recorded(f)
	f.Add(watched)
	f.Add(event("ERROR", enveloped("Status", msg(statusMessage, "m", statusCode, 410, statusDetails, msg(detailsCauses, msg(causeReason, tooLargeCause), detailsRetryAfter, 7)))))
	c, err := New(Options{URL: "http://127.0.0.1:1", ServiceAccount: f.TempDir(), Annotations: []string{kept}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		w := watch[Object]{Reader: c.Metadata(Nodes)}
		for next := w.codec.frames(bytes.NewReader(body)); ; {
			kind, m, err := next()
			if err != nil {
				return
			}
			before := w.last
			e, err := w.event(kind, m)
			if err == nil && (e.Version < before || e.Version <= 0) {
				t.Errorf("%+v after %d", e, before)
			}
		}
	})
}

func TestRecorded(t *testing.T) {
	list, nodes, watched := recorded(t)
	names := map[string]bool{}
	for _, body := range [][]byte{list, nodes} {
		kind, _, err := unknown(body, false)
		if err != nil {
			t.Fatal(err)
		}
		l := listing[Node]{}
		if err := (protobufCodec{}).list(bytes.NewReader(body), kind, l.meta, func(m message) error {
			names[kind+" "+newDecoder(nil).node(m).Name] = true
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	if len(names) != 6 || len(watched) == 0 {
		t.Errorf("%v", slices.Sorted(maps.Keys(names)))
	}
}

// BenchmarkList decodes the metadata of 5,000 Nodes with some 2.5 kB each, as a watch of the store does at a start.
func BenchmarkList(b *testing.B) {
	var items [][]byte
	for i := range 5000 {
		items = append(items, meta(metaName, fmt.Sprintf("node-%04d", i), metaUID, "00000000-0000-4000-8000-000000000000", metaVersion, "123456",
			metaAnnotations, annotation(kept, "172.31.0.1"), metaAnnotations, annotation(other, strings.Repeat("x", 300)),
			protowire.Number(17), strings.Repeat("m", 2000)))
	}
	body := listOf(items...)
	d := newDecoder([]string{kept})
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		l := listing[Object]{pass: func(Page) error { return nil }}
		if err := (protobufCodec{}).list(bytes.NewReader(body), "PartialObjectMetadataList", l.meta, func(m message) error {
			if l.page.Objects = append(l.page.Objects, d.object(m, nil)); len(l.page.Objects) == PageSize {
				return l.hand()
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
}
