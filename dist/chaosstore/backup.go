package chaosstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// backup returns a copy of the data of all members, which do not run meanwhile.
func (s *store) backup(ctx context.Context) (dir string, err error) {
	if dir, err = os.MkdirTemp(s.dir, "backup-"); err != nil {
		return "", err
	}
	s.kill()
	for _, m := range s.members {
		if err := os.CopyFS(filepath.Join(dir, filepath.Base(m.DataDir())), os.DirFS(m.DataDir())); err != nil {
			return "", fmt.Errorf("copy etcd's data: %w", err)
		}
	}
	return dir, s.start(ctx)
}

// replace ends all members and puts a backup in the place of their data; an empty name: nothing.
func (s *store) replace(backup string) error {
	s.kill()
	for _, m := range s.members {
		if err := os.RemoveAll(m.DataDir()); err != nil {
			return err
		}
		if backup == "" {
			continue
		}
		if err := os.CopyFS(m.DataDir(), os.DirFS(filepath.Join(backup, filepath.Base(m.DataDir())))); err != nil {
			return fmt.Errorf("restore etcd's data: %w", err)
		}
	}
	return nil
}
