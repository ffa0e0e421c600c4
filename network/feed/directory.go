package feed

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/selvage-net/selvage/network/filewatch"
	"github.com/selvage-net/selvage/network/policy"
	"github.com/selvage-net/selvage/network/policy/manifest"
	"github.com/selvage-net/selvage/subnet"
)

const (
	// maxFile is the largest file that is read, in bytes.
	maxFile = 16 << 20
	// pollDirectory is how often a directory is read if nothing reports a change.
	pollDirectory = time.Minute
	// readTries is how often a directory is read again whose files go while it is read.
	readTries = 3
)

// DirectoryOptions are the options of [Directory].
type DirectoryOptions struct {
	Dir    string
	Sink   Sink
	Report *Report // gets what there is to report; may be nil
	Log    logrus.FieldLogger
}

// Directory follows the files of a directory until ctx ends, and hands over the objects in them: those whose names end
// in .yaml, .yml or .json and do not begin with a dot. See package manifest for what they have.
//
// A file that cannot be read, or not as a whole, keeps what it said before, and a directory that cannot be read keeps
// all. The sink is in sync once all files have been read. If two files differ about an object, the one whose name comes
// first counts. Replace files with rename(2): a file that is read while it is written may say less than it will.
func Directory(ctx context.Context, o DirectoryOptions) error {
	if o.Report == nil {
		o.Report = &Report{}
	}
	d := &directory{
		o: o, files: map[string]*policyFile{}, now: manifest.New(manifest.Options{}), noted: map[string]bool{},
	}
	o.Report.begin(Files)
	changed, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		filewatch.Keep(ctx, pollDirectory, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		}, o.Dir+"/", filepath.Join(o.Dir, filewatch.ConfigMapLink))
	}()
	defer func() { <-ended }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.Sink.PeersChanged():
			o.Sink.SetSynced(d.synced) // all pods are known
		case <-changed:
			d.read()
		}
	}
}

// policyFile is a file of the directory.
type policyFile struct {
	data    []byte // of the last time that it was read
	objects []manifest.Document
	good    bool // it was read as a whole once
	err     error
}

// directory is one call of Directory.
type directory struct {
	o      DirectoryOptions
	files  map[string]*policyFile // by name
	now    *manifest.Cluster      // that was handed over
	synced bool
	noted  map[string]bool // objects with notes
}

// read reads what has changed, and hands it over.
func (d *directory) read() {
	contents, err := readDirectory(d.o.Dir)
	d.o.Report.change(Files, func(s *SourceState) {
		switch {
		case err == nil:
			s.Since, s.Problem, s.Objects = time.Time{}, subnet.Problem{}, len(contents)
		case s.Since.IsZero():
			s.Since = time.Now()
		}
		if err != nil {
			before := s.Problem.Err
			s.Problem = subnet.Problem{Reason: subnet.ReasonOther, Err: err}
			if before == nil || before.Error() != err.Error() {
				d.o.Log.WithError(err).Error("cannot read the directory of network policies; those known stay in force")
			}
		}
	})
	if err != nil {
		return
	}
	for name := range d.files {
		if _, ok := contents[name]; !ok {
			delete(d.files, name)
		}
	}
	complete := true
	for name, c := range contents {
		f := d.files[name]
		if f == nil {
			f = &policyFile{}
			d.files[name] = f
		}
		d.take(name, f, c)
		complete = complete && f.good
	}
	d.hand()
	if complete && !d.synced {
		d.synced = true
		d.o.Report.change(Files, func(s *SourceState) { s.Complete = true })
		d.o.Sink.SetSynced(true)
	}
}

// content is what was read of a file.
type content struct {
	data []byte
	err  error
}

// readDirectory reads all files. A file that is gone when it is to be read may have been renamed.
func readDirectory(dir string) (map[string]content, error) {
	for try := 1; ; try++ {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		all, gone := map[string]content{}, false
		for _, e := range entries {
			if !isManifest(e.Name()) {
				continue
			}
			data, err := readFile(filepath.Join(dir, e.Name()))
			gone = gone || errors.Is(err, fs.ErrNotExist)
			all[e.Name()] = content{data, err}
		}
		if !gone || try == readTries {
			return all, nil
		}
	}
}

func isManifest(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return data, err
}

// take takes in the content of a file, if it has changed.
func (d *directory) take(name string, f *policyFile, c content) {
	switch {
	case c.err != nil:
		f.data, f.err = nil, c.err
	case f.data != nil && string(c.data) == string(f.data):
		return
	default:
		f.data = append([]byte{}, c.data...) // not nil
		var objects []manifest.Document
		if objects, f.err = parse(name, c.data); f.err == nil {
			f.objects, f.good = objects, true
		}
	}
}

// parse reads a file as a whole.
func parse(name string, data []byte) ([]manifest.Document, error) {
	objects, err := manifest.Split(name, data)
	if err != nil {
		return nil, err
	}
	alone := manifest.New(manifest.Options{})
	for _, o := range objects {
		if err := alone.Add(o); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// hand hands over what all files say.
func (d *directory) hand() {
	next := manifest.New(manifest.Options{})
	for _, name := range sortedKeys(d.files) {
		f := d.files[name]
		if f.err != nil {
			next.Notes = append(next.Notes, fileNote(name, f.err, "what the file said before stays in force"))
		}
		for _, o := range f.objects {
			if err := next.Add(o); err != nil { // another file has the object too
				next.Notes = append(next.Notes, fileNote(name, err, "that one is in force"))
			}
		}
	}
	_ = next.Complete() // adds namespaces that no file has; it gives no addresses without a network
	d.note(next.Notes)
	before := d.now
	d.now = next
	if changes := differences(before, next); len(changes) > 0 {
		d.o.Sink.Update(func(o policy.Objects) {
			for _, c := range changes {
				c(o)
			}
		})
	}
}

// fileObject is what the object of a note about a file begins with.
const fileObject = "file "

// fileNote is about a file that has an error, and says what follows.
func fileNote(name string, err error, follows string) manifest.Note {
	return manifest.Note{Object: fileObject + name, Problem: policy.Problem{
		Reason: policy.ReasonMalformed, Text: err.Error() + "; " + follows,
	}}
}

// differences returns what leads from one cluster to another.
func differences(from, to *manifest.Cluster) (list []change) {
	compare(from.Namespaces, to.Namespaces, func(n policy.Namespace) {
		list = append(list, func(o policy.Objects) { o.SetNamespace(n) })
	}, func(n policy.Namespace) {
		list = append(list, func(o policy.Objects) { o.DeleteNamespace(n.Name) })
	})
	compare(from.Policies, to.Policies, func(p *policy.Policy) {
		list = append(list, func(o policy.Objects) { o.SetPolicy(*p) })
	}, func(p *policy.Policy) {
		list = append(list, func(o policy.Objects) { o.DeletePolicy(p.Namespace, p.Name) })
	})
	compare(from.ClusterWide, to.ClusterWide, func(p *policy.ClusterPolicy) {
		list = append(list, func(o policy.Objects) { o.SetClusterPolicy(*p) })
	}, func(p *policy.ClusterPolicy) {
		list = append(list, func(o policy.Objects) { o.DeleteClusterPolicy(p.Name) })
	})
	compare(from.Pods, to.Pods, func(p *policy.Pod) {
		list = append(list, func(o policy.Objects) { o.SetPod(*p) })
	}, func(p *policy.Pod) {
		list = append(list, func(o policy.Objects) { o.DeletePod(p.UID) })
	})
	return list
}

// compare calls put for what is new or differs, and remove for what is gone.
func compare[T any](from, to map[string]T, put, remove func(T)) {
	for _, key := range sortedKeys(to) {
		if old, ok := from[key]; !ok || !reflect.DeepEqual(old, to[key]) {
			put(to[key])
		}
	}
	for _, key := range sortedKeys(from) {
		if _, ok := to[key]; !ok {
			remove(from[key])
		}
	}
}

// note reports notes, by object. That no file has a namespace is no reason for one: there may be no namespaces.
func (d *directory) note(notes []manifest.Note) {
	byObject := map[string][]manifest.Note{}
	for _, n := range notes {
		if n.Reason != manifest.ReasonNamespace {
			byObject[n.Object] = append(byObject[n.Object], n)
		}
	}
	for object := range d.noted {
		if byObject[object] == nil {
			d.o.Report.set(object, noted{})
		}
	}
	clear(d.noted)
	for _, object := range sortedKeys(byObject) {
		d.noted[object] = true
		text := fnv.New64a()
		for _, n := range byObject[object] {
			_, _ = io.WriteString(text, n.String()+"\n")
		}
		message := notUnderstood
		if strings.HasPrefix(object, fileObject) {
			message = "a file of network policies has an error"
		}
		d.o.Report.note(d.o.Log, message, object, noted{int64(text.Sum64()), byObject[object]})
	}
}
