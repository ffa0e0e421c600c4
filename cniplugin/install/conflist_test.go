package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
)

// TestRuntimesReadIt has libcni read what was written, as runtimes do.
func TestRuntimesReadIt(t *testing.T) {
	n := newNode(t)
	n.install()
	list, err := libcni.ConfListFromFile(filepath.Join(n.ConfDir, DefaultConflist))
	if err != nil {
		t.Fatal(err)
	}
	if list.Name != "cbr0" || len(list.Plugins) != 2 || list.Plugins[0].Network.Type != "selvage" || !list.Plugins[1].Network.Capabilities["portMappings"] {
		t.Errorf("got %+v", list)
	}
	if files, err := libcni.ConfFiles(n.ConfDir, []string{".conf", ".conflist", ".json"}); err != nil || len(files) != 1 {
		t.Errorf("got %v, %v", files, err)
	}
}

func TestConflistOfSomebodyElse(t *testing.T) {
	n := newNode(t)
	path := filepath.Join(n.ConfDir, DefaultConflist)
	for name, content := range map[string]string{
		"another":   `{"cniVersion":"1.0.0","cniVersions":["1.0.0","1.1.0"],"name":"cbr0","plugins":[{"type":"calico"}]}`,
		"no JSON":   `{"cniVersion":`,
		"null":      `null`,
		"no digest": `{"name":"cbr0","selvage.installed":7}`,
	} {
		n.write(path, content)
		n.Force = false
		if _, err := Install(t.Context(), n.Options); err == nil || !strings.Contains(err.Error(), "written by another program or edited, and was kept") {
			t.Errorf("%s: got %v", name, err)
		}
		r, err := Uninstall(n.Options)
		if err != nil {
			t.Fatal(err)
		}
		n.says(r.Warnings, "written by another program or edited: kept")
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%s: now it is %s, %v", name, got, err)
		}
		n.Force = true
		n.says(n.install().Done, "selvage is now", "conflist is written")
	}
}

// TestEditedConflist keeps what somebody changed in a file of ours, and takes one for ours again whose change was undone.
func TestEditedConflist(t *testing.T) {
	n := newNode(t)
	n.install()
	path := filepath.Join(n.ConfDir, DefaultConflist)
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n.write(path, strings.Replace(string(written), `"1.0.0"`, `"0.4.0"`, 1))
	if _, err := Install(t.Context(), n.Options); err == nil || !strings.Contains(err.Error(), "or edited, and was kept") {
		t.Errorf("got %v", err)
	}
	n.write(path, strings.ReplaceAll(string(written), "\n", " "))
	n.says(n.install().Done, "up to date", "conflist is written")
}

// TestConflistWrittenByHand is as ours but for the marker: it is left as it is, also at the end.
func TestConflistWrittenByHand(t *testing.T) {
	n := newNode(t)
	n.SubnetFile = filepath.Join(n.dir, "run", "subnet.env")
	path := filepath.Join(n.ConfDir, DefaultConflist)
	n.write(path, `{"name":"cbr0","cniVersions":["1.0.0","1.1.0"],"cniVersion":"1.0.0","plugins":[
		{"type":"selvage","subnetFile":"`+n.SubnetFile+`","delegate":{"isDefaultGateway":true,"hairpinMode":true}},
		{"type":"portmap","capabilities":{"portMappings":true}}]}`)
	n.says(n.install().Done, "selvage is now", "is up to date")
	if _, err := Uninstall(n.Options); err != nil {
		t.Fatal(err)
	}
	n.wantFiles(n.ConfDir, DefaultConflist)
}

func TestOtherConflists(t *testing.T) {
	n := newNode(t)
	n.write(filepath.Join(n.ConfDir, "05-other.conf"), `{"name":"other","type":"bridge"}`)
	n.write(filepath.Join(n.ConfDir, "20-flannel.conflist"), `{"name":"cbr0","plugins":[{"type":"flannel"}]}`)
	n.write(filepath.Join(n.ConfDir, "30-broken.conflist"), `{`)
	n.write(filepath.Join(n.ConfDir, "00-note.txt"), `not read by runtimes`)
	if err := os.Symlink("/nonexistent", filepath.Join(n.ConfDir, "40-gone.conf")); err != nil {
		t.Fatal(err)
	}
	r := n.install()
	n.says(r.Warnings, "05-other.conf comes before 10-selvage.conflist", "20-flannel.conflist has the network name cbr0 as well", "40-gone.conf cannot be read")
	n.wantFiles(n.ConfDir, "00-note.txt", "05-other.conf", "10-selvage.conflist", "20-flannel.conflist", "30-broken.conflist", "40-gone.conf")
}

func TestTemplate(t *testing.T) {
	n := newNode(t)
	n.Template = filepath.Join(n.dir, "template.json")
	n.write(n.Template, `{"cniVersion":"1.1.0","name":"mine","plugins":[{"type":"selvage","delegate":{"mtu":1400}}]}`)
	n.install()
	list, err := libcni.ConfListFromFile(filepath.Join(n.ConfDir, DefaultConflist))
	if err != nil || list.Name != "mine" || len(list.Plugins) != 1 {
		t.Errorf("got %+v, %v", list, err)
	}
	n.write(n.Template, `{"cniVersion":"1.1.0","name":"mine","plugins":[{"type":"selvage","delegate":{"mtu":1300}}]}`)
	n.says(n.install().Done, "up to date", "conflist is written")
	for content, want := range map[string]string{
		`{`:                             "template.json: unexpected EOF",
		`null`:                          "null is no network configuration",
		`{"plugins":[{}]}`:              `no "name"`,
		`{"name":"mine"}`:               `no "plugins"`,
		`{"name":"x","type":"selvage"}`: `no "plugins"`,
	} {
		n.write(n.Template, content)
		if _, err := Install(t.Context(), n.Options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", content, err, want)
		}
	}
}
