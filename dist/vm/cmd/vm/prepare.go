package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/dist/vm"
)

// guest is the directory of the repository in the virtual machine.
const guest = "/selvage"

// prepare builds the tests and writes the initramfs, and says in o.machine where the files are.
func prepare(ctx context.Context, o *options, suites []vm.Suite) error {
	kernels, err := filepath.Glob(filepath.Join(o.kernel, "boot", "vmlinuz-*"))
	if err != nil {
		return err
	}
	if len(kernels) != 1 {
		return fmt.Errorf("%d kernels in %s/boot, want one: run make e2e-vm, which fetches it", len(kernels), o.kernel)
	}
	a := &vm.Archive{}
	a.Merge()
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run", "/tmp", "/root", "/var/lib", "/etc", "/opt"} {
		a.Dir(dir)
	}
	a.Link("/var/run", "/run")
	a.Data("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"))
	a.File("/init", filepath.Join(o.out, "init"))
	plan := vm.Plan{Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "GORACE=atexit_sleep_ms=0"}}

	modules, err := vm.Modules(filepath.Join(o.kernel, "lib", "modules"), vm.KernelModules())
	if err != nil {
		return err
	}
	for _, file := range modules {
		in := "/modules/" + filepath.Base(file)
		a.File(in, file)
		plan.Modules = append(plan.Modules, in)
	}
	if err := programs(a, o); err != nil {
		return err
	}
	for _, s := range suites {
		if err := build(ctx, o, s); err != nil {
			return err
		}
		runs, err := suite(a, o, s)
		if err != nil {
			return fmt.Errorf("suite %s: %w", s.Name, err)
		}
		plan.Runs = append(plan.Runs, runs...)
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	a.Data(vm.PlanFile, text)
	o.machine.Kernel, o.machine.Initrd = kernels[0], filepath.Join(o.out, "initrd")
	f, err := os.Create(o.machine.Initrd)
	if err != nil {
		return err
	}
	return errors.Join(a.Write(f), f.Close())
}

// programs adds the repository's bin, and programs of the machine.
func programs(a *vm.Archive, o *options) error {
	for _, name := range []string{"selvaged", "selvage", "etcd", "flanneld", "cni/bridge", "cni/host-local", "cni/loopback",
		"cni/portmap", "cni/ptp", "cni/bandwidth"} {
		file := filepath.Join(o.repository, "bin", name)
		a.File(path.Join(guest, "bin", name), file)
		if err := a.Libraries(file); err != nil {
			return err
		}
	}
	for _, name := range vm.Programs() {
		if err := a.Program(name); err != nil {
			return err
		}
	}
	return errors.Join(a.Plugins("/usr/lib/*-linux-gnu/xtables/*.so"))
}

// build builds the tests of a suite.
func build(ctx context.Context, o *options, s vm.Suite) error {
	cmd := exec.CommandContext(ctx, goCommand(), "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", testBinary(o, s), ".")
	cmd.Dir = filepath.Join(o.repository, s.Dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the tests in %s: %w", s.Dir, err)
	}
	return nil
}

func testBinary(o *options, s vm.Suite) string { return filepath.Join(o.out, s.Name+".test") }

// suite adds the tests of a suite with their test data.
func suite(a *vm.Archive, o *options, s vm.Suite) (runs []vm.Run, err error) {
	source := filepath.Join(o.repository, s.Dir)
	dir := path.Join(guest, s.Dir)
	in := path.Join(dir, s.Name+".test")
	a.File(in, testBinary(o, s))
	err = filepath.WalkDir(filepath.Join(source, "testdata"), func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			a.File(path.Join(dir, strings.TrimPrefix(file, source)), file)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for i, name := range s.Cases() {
		runs = append(runs, vm.Run{
			Case: name, Dir: dir, Env: s.Env,
			Argv: []string{in, "-test.v", "-test.run", "^" + s.Tests[i] + "$", "-test.timeout", o.caseLimit.String()},
		})
	}
	return runs, nil
}

func goCommand() string {
	if name := os.Getenv("GO"); name != "" {
		return name
	}
	return "go"
}
