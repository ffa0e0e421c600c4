package cri

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	api "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// Manifest is what of the DaemonSet's manifest the kubelet needs to run its pod.
type Manifest struct {
	Containers []Program
	Volumes    []Volume
	ConfigMaps map[string]map[string]string // by name
}

// Program is a container of the manifest.
type Program struct {
	Name, Image string
	Args        []string
	EnvFrom     []struct{ ConfigMapRef struct{ Name string } }
	Security    struct {
		AllowPrivilegeEscalation, ReadOnlyRootFilesystem, Privileged bool
		RunAsUser                                                    int64
		Capabilities                                                 struct{ Add, Drop []string }
		SeccompProfile                                               struct{ Type string }
	} `json:"securityContext"`
	Mounts []struct {
		Name, MountPath string
		ReadOnly        bool
	} `json:"volumeMounts"`
}

// Volume is a directory or a file of the node, or a ConfigMap's content.
type Volume struct {
	Name      string
	HostPath  *struct{ Path, Type string }
	ConfigMap *struct{ Name string }
}

// ReadManifest reads the plain manifest.
func ReadManifest(path string) (*Manifest, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &Manifest{ConfigMaps: map[string]map[string]string{}}
	for doc := range bytes.SplitSeq(data, []byte("\n---\n")) {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Data     map[string]string
			Spec     struct {
				Template struct {
					Spec struct {
						Containers []Program
						Volumes    []Volume
					}
				}
			}
		}
		if err := yaml.Unmarshal(doc, &object); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		switch object.Kind {
		case "ConfigMap":
			m.ConfigMaps[object.Metadata.Name] = object.Data
		case "DaemonSet":
			spec := object.Spec.Template.Spec
			m.Containers, m.Volumes = spec.Containers, spec.Volumes
		}
	}
	if len(m.Containers) == 0 {
		return nil, fmt.Errorf("%s has no DaemonSet", path)
	}
	return m, nil
}

// Prepare makes on the node what the kubelet makes for the volumes, and returns where each is. ConfigMaps are written below
// dir.
func (m *Manifest) Prepare(dir string) (map[string]string, error) {
	paths := map[string]string{}
	for _, v := range m.Volumes {
		var err error
		switch {
		case v.HostPath != nil:
			paths[v.Name] = v.HostPath.Path
			err = makeHostPath(v.HostPath.Path, v.HostPath.Type)
		case v.ConfigMap != nil:
			paths[v.Name] = filepath.Join(dir, v.Name)
			err = os.MkdirAll(paths[v.Name], 0o755)
			for name, content := range m.ConfigMaps[v.ConfigMap.Name] {
				err = errors.Join(err, os.WriteFile(filepath.Join(paths[v.Name], name), []byte(content), 0o644))
			}
		default:
			err = errors.New("of no kind that is known here")
		}
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return paths, nil
}

// makeHostPath makes what hostPath.type says.
func makeHostPath(path, kind string) error {
	switch kind {
	case "DirectoryOrCreate":
		return os.MkdirAll(path, 0o755)
	case "FileOrCreate":
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	}
	return nil
}

// Config is a container as the kubelet asks the runtime for it. env goes before the ConfigMaps' values.
func (m *Manifest) Config(p Program, volumes, env map[string]string) *api.ContainerConfig {
	c := &api.ContainerConfig{
		Metadata: &api.ContainerMetadata{Name: p.Name}, Image: &api.ImageSpec{Image: p.Image}, Args: p.Args,
		Linux: &api.LinuxContainerConfig{SecurityContext: &api.LinuxContainerSecurityContext{
			Privileged: p.Security.Privileged, ReadonlyRootfs: p.Security.ReadOnlyRootFilesystem,
			NoNewPrivs:       !p.Security.AllowPrivilegeEscalation,
			RunAsUser:        &api.Int64Value{Value: p.Security.RunAsUser},
			Capabilities:     &api.Capability{AddCapabilities: p.Security.Capabilities.Add, DropCapabilities: p.Security.Capabilities.Drop},
			NamespaceOptions: &api.NamespaceOption{Network: api.NamespaceMode_NODE, Pid: api.NamespaceMode_CONTAINER},
			// What the kubelet asks for, if nothing else is said.
			MaskedPaths: []string{"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		}},
	}
	if p.Security.SeccompProfile.Type == "RuntimeDefault" {
		c.Linux.SecurityContext.Seccomp = &api.SecurityProfile{ProfileType: api.SecurityProfile_RuntimeDefault}
	}
	all := map[string]string{}
	for _, from := range p.EnvFrom {
		maps.Copy(all, m.ConfigMaps[from.ConfigMapRef.Name])
	}
	maps.Copy(all, env)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c.Envs = append(c.Envs, &api.KeyValue{Key: name, Value: all[name]})
	}
	for _, mount := range p.Mounts {
		c.Mounts = append(c.Mounts, &api.Mount{ContainerPath: mount.MountPath, HostPath: volumes[mount.Name], Readonly: mount.ReadOnly})
	}
	return c
}

// readLog returns what a container printed, without what the runtime puts before each line.
func readLog(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for line := range strings.Lines(string(data)) {
		if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
			out.WriteString(fields[3])
		}
	}
	return out.String()
}
