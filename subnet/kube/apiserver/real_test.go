package apiserver

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/selvage-net/selvage/dist/lab/kubeserver"
	"github.com/selvage-net/selvage/subnet/kube/kubetest"
)

// requireServer is the environment variable with which the tests run against a real kube-apiserver as well, as those of
// make test-kube do.
const requireServer = "SELVAGE_TEST_KUBE"

// real is the kube-apiserver of all tests, which take turns; nil: they run with the stand-in alone.
var real *kubeserver.Server

// startReal starts it. stop ends it.
func startReal() (stop func(), err error) {
	if os.Getenv(requireServer) == "" {
		return func() {}, nil
	}
	program, err := kubeserver.Find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "selvage-kube-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if real, err = kubeserver.Start(ctx, kubeserver.Options{Binary: program, Dir: dir}); err != nil {
		return nil, err
	}
	return func() {
		real.Kill()
		os.RemoveAll(dir)
	}, nil
}

// realBackend is the kube-apiserver, without a Node or a Pod.
func realBackend(t *testing.T) backend {
	within := func(t *testing.T, do func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := do(ctx); err != nil {
			t.Fatal(err)
		}
	}
	admin := kubetest.Admin{
		URL: real.URL(), Token: real.Token(kubeserver.Admin), Client: trusting(t, real.CAFile()),
	}
	for _, path := range []string{"/api/v1/nodes", "/api/v1/namespaces/default/pods?gracePeriodSeconds=0"} {
		within(t, func(ctx context.Context) error { return admin.DeleteAll(ctx, path) })
	}
	file := filepath.Join(t.TempDir(), "backup")
	return backend{
		options: Options{
			Kubeconfig:  kubeconfigFile(t, real.URL(), real.CAFile(), "token: "+real.Token(kubeserver.Admin)),
			Annotations: []string{kept},
		},
		admin:   admin,
		compact: func(t *testing.T) { within(t, real.Compact) },
		forget: func(t *testing.T) {
			within(t, func(ctx context.Context) error {
				if err := real.Compact(ctx); err != nil {
					return err
				}
				real.Crash() // its cache has the history too
				return real.Resume(ctx)
			})
		},
		backup: func(t *testing.T) {
			within(t, func(ctx context.Context) error { return real.Backup(ctx, file) })
		},
		restore: func(t *testing.T) {
			within(t, func(ctx context.Context) error { return real.Restore(ctx, file) })
		},
	}
}
