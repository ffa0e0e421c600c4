package release

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Archive returns a compressed tar archive of files, with the directories that lead to them.
func Archive(files []File, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{".": true}
	for _, f := range files {
		for _, dir := range missing(path.Dir(f.Path), made) {
			h := tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at, Format: tar.FormatUSTAR}
			if err := w.WriteHeader(&h); err != nil {
				return nil, fmt.Errorf("pack %s: %w", dir, err)
			}
		}
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: int64(f.Mode), Size: int64(len(f.Data)), ModTime: at,
			Format: tar.FormatUSTAR}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return compress(out.Bytes()), nil
}

// missing returns dir and what leads to it, the top first, without what was made before.
func missing(dir string, made map[string]bool) (dirs []string) {
	for ; !made[dir]; dir = path.Dir(dir) {
		made[dir] = true
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}

// Chart returns the files of the chart, as `helm package` has them, with the version of the release as that of the
// chart and of the application.
func Chart(repository, version, appVersion string) ([]File, error) {
	root := filepath.Join(repository, "dist/chart/selvage")
	var files []File
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		files = append(files, File{Path: path.Join("selvage", filepath.ToSlash(rel)), Mode: 0o644, Data: data})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	i := slices.IndexFunc(files, func(f File) bool { return f.Path == "selvage/Chart.yaml" })
	if i < 0 {
		return nil, fmt.Errorf("%s has no Chart.yaml", root)
	}
	set := map[string]string{"version": version, "appVersion": appVersion}
	var text strings.Builder
	for line := range strings.Lines(string(files[i].Data)) {
		key, _, _ := strings.Cut(line, ":")
		if value, found := set[key]; found {
			line = fmt.Sprintf("%s: %q\n", key, value)
			delete(set, key)
		}
		text.WriteString(line)
	}
	if len(set) > 0 {
		return nil, fmt.Errorf("the chart's Chart.yaml does not set %v", set)
	}
	files[i].Data = []byte(text.String())
	return files, nil
}
