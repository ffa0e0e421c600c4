package engines

import (
	"os"
	"strings"
	"testing"
)

// testDockerByHand starts Docker on the first machine by what Documentation/docker.md has for those without systemd, word for
// word, in place of the unit and the drop-in.
func testDockerByHand(t *testing.T, c *cluster) {
	page, err := os.ReadFile("../../Documentation/docker.md")
	if err != nil {
		t.Fatal(err)
	}
	_, byHand, _ := strings.Cut(string(page), "\nBy hand, without systemd")
	blocks := strings.Split(byHand, "```\n")
	if len(blocks) < 4 {
		t.Fatalf("want two blocks of commands, how to start Docker and what comes after: %.200s", byHand)
	}
	start, after := blocks[1], blocks[3]
	if *engine != "" {
		start = strings.Replace(start, "dockerd ", "dockerd --allow-direct-routing ", 1)
	}
	m := c.at[0]
	c.run(t, m, "systemctl", "stop", "docker.socket", "docker.service")
	c.run(t, m, "sh", "-c", "iptables --flush DOCKER-USER; iptables --append DOCKER-USER --jump RETURN; exec >/run/by-hand.log 2>&1; "+start)
	t.Cleanup(func() {
		if log, err := m.Node.ReadFile("/run/by-hand.log"); t.Failed() {
			t.Logf("Docker, started by hand, printed %s (%v)", log, err)
		}
	})
	c.eventually(t, "Docker, started by hand", func() error { _, err := m.Inside(c.ctx, "docker", "info"); return err })
	c.run(t, m, "sh", "-ec", ". /run/flannel/subnet.env; "+after)

	here, there := c.docker(t, m, "here"), c.docker(t, c.at[1], "there")
	c.reach(t, here, there)
	c.outward(t, here)
	c.removeDocker(t, here, there)
}
