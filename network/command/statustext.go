package command

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// showStatus writes a status for people.
func showStatus(w io.Writer, st style, s status.Status, version string, now time.Time) {
	state := st.good(string(s.State))
	if s.State != status.Ready {
		state = st.bad(string(s.State))
	}
	fmt.Fprintf(w, "%s: %s for %s\n", st.bold(s.Node), state, ago(now, s.Since))
	for _, p := range s.Problems {
		mark := st.bad("!")
		if p.Warning {
			mark = st.odd("!")
		}
		text := fmt.Sprintf("  %s %s: %s (for %s)", mark, p.Topic, p.Text, ago(now, p.Since))
		fmt.Fprintln(w, st.fold(text, len("  ! ")))
	}
	line := func(name, format string, args ...any) {
		fmt.Fprintln(w, st.fold(fmt.Sprintf("%-9s %s", name, fmt.Sprintf(format, args...)), len("entries   ")))
	}
	if l := s.Lease; l != nil {
		line("lease", "%s  %s", join(l.Subnets), leaseTime(*l, subnet.StoreKind(s.Store.Kind).Words(), now))
	} else {
		line("lease", "none yet")
	}
	if u := s.Uplink; u != nil {
		text := fmt.Sprintf("%s %s, MTU %d: %s", u.Name, join(u.Local), u.MTU, u.Why)
		if !slices.Equal(u.Local, u.PublicIP) {
			text += ", public IP " + join(u.PublicIP)
		}
		line("uplink", "%s", text)
		for _, not := range u.Not {
			line("", "not %s", not)
		}
	}
	if b := s.Backend; b != nil {
		line("backend", "%s, pod MTU %d", b.Type, b.PodMTU)
		for _, text := range moveLines(*b, s.Peers) {
			line("", "%s", text)
		}
		for _, d := range b.Devices {
			sync := ""
			if !d.Present {
				sync = st.bad(" out of sync")
			}
			line("", "%s%s%s", deviceText(d), dropsText(d.Drops), sync)
		}
	}
	line("filter", "%s", filterLine(s.Filter))
	for _, f := range slices.Concat(s.Filter.Trouble, s.Filter.Foreign, s.Filter.Left) {
		line("", "%s %s", st.odd("!"), f)
	}
	for i, text := range fastPathLines(s.FastPath) {
		line([]string{"fast path", ""}[min(i, 1)], "%s", text)
	}
	line("peers", "%s", peersLine(s.Peers))
	if text := probesLine(s.Probes); text != "" {
		line("", "%s", text)
	}
	if s.Pods != nil {
		for i, text := range podsLines(*s.Pods, now) {
			name := ""
			if i == 0 {
				name = "pods"
			}
			line(name, "%s", text)
		}
	}
	for i, text := range policiesLines(s, now) {
		line([]string{"policies", ""}[min(i, 1)], "%s", text)
	}
	for _, q := range s.Quarantined {
		line("", "%s lease %s rejected: %s", st.odd("!"), q.Key, q.Why)
	}
	if more := s.Peers.Quarantined - len(s.Quarantined); more > 0 && len(s.Quarantined) > 0 {
		line("", "%s %d more: selvaged peers --bad", st.odd("!"), more)
	}
	line("entries", "%s", entriesLine(s.Entries))
	line("repairs", "%s", repairsLine(s.Repairs, now))
	words := subnet.StoreKind(s.Store.Kind).Words()
	line(words.Label, "%s", storeLine(s.Store, now))
	line("versions", "%s", versionsLine(s, version, now))
}

// versionsLine returns the versions and the daemon's uptime.
func versionsLine(s status.Status, version string, now time.Time) string {
	text := "selvaged " + s.Version
	if !s.Started.IsZero() {
		text += ", started " + ago(now, s.Started) + " ago"
	}
	if version != s.Version {
		text += "; this command is " + version
	}
	if s.Kernel != "" {
		text += "; Linux " + s.Kernel
	}
	return text
}

// dropsText returns the device's drop and error counters that are not zero.
func dropsText(d *status.Drops) string {
	if d == nil {
		return ""
	}
	text := ""
	for _, x := range []struct {
		n    uint64
		what string
	}{
		{d.Received, "received packets dropped"}, {d.Sent, "sent packets dropped"},
		{d.ReceiveErrors, "receive errors"}, {d.SendErrors, "send errors"},
	} {
		if x.n > 0 {
			text += fmt.Sprintf(", %d %s", x.n, x.what)
		}
	}
	return text
}

func leaseTime(l status.Lease, words subnet.StoreWords, now time.Time) string {
	id := fmt.Sprintf("etcd lease %x", l.EtcdLease) // as etcdctl has it
	switch {
	case l.Reservation:
		return words.NeverExpires
	case l.Expires.IsZero():
		return id + ", expiry not known yet"
	default:
		return fmt.Sprintf("%s, kept alive; expires in %s without keep-alives", id, span(l.Expires.Sub(now)))
	}
}

func filterLine(f status.Filter) string {
	text := cmp.Or(f.Mode, "none")
	if f.Why != "" {
		text += fmt.Sprintf(": %s", f.Why)
	}
	if !f.InForce {
		text += "; the rules are not set"
	}
	if f.VTEPFilter {
		text += "; VXLAN packets are accepted from peers only"
	}
	return text
}

// moveLines returns how far a move to another backend and changes of keys are, and how many peers are encrypted.
func moveLines(b status.Backend, peers status.PeerCounts) (lines []string) {
	if b.Move != nil {
		lines = append(lines, "the network moves here from "+b.Move.From)
		for _, w := range b.Move.Waiting {
			lines = append(lines, fmt.Sprintf("%s is reached by %s: %s", cmp.Or(w.Node, w.Key), b.Move.From, w.Why))
		}
		if b.Move.More > 0 {
			lines = append(lines, fmt.Sprintf("%d more are reached by %s", b.Move.More, b.Move.From))
		}
	}
	lines = append(lines, rotationLines(b.Rotation)...)
	if b.Encrypted != nil {
		text := fmt.Sprintf("%d of %d peers encrypted", *b.Encrypted, peers.Programmed+peers.Pending)
		switch b.Encryption {
		case status.EncryptionRequired:
			text += ", others are rejected"
		case status.EncryptionAwaited:
			text += ", others are rejected once all are"
		}
		lines = append(lines, text)
	}
	return lines
}

func peersLine(c status.PeerCounts) string {
	text := fmt.Sprintf("%d programmed", c.Programmed)
	for _, x := range []struct {
		n    int
		what string
	}{{c.Pending, "pending"}, {c.Grace, "withdrawn"}, {c.Quarantined, "quarantined"}} {
		if x.n > 0 {
			text += fmt.Sprintf(", %d %s", x.n, x.what)
		}
	}
	return text
}

// probesLine returns how many of the probed peers are reachable.
func probesLine(all []status.Probes) string {
	var parts []string
	for _, p := range all {
		switch {
		case p.Off == status.NotPermitted:
			return "not probed: it needs CAP_NET_RAW"
		case p.Off != "":
			return ""
		case p.Reachable+p.Unreachable > 0:
			text := fmt.Sprintf("%s: %d of %d probed are reachable", p.Family, p.Reachable, p.Reachable+p.Unreachable)
			if p.Reachable > 0 {
				text += ", the slowest in " + milliseconds(p.MaxRTT)
			}
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, "; ")
}

// podsLines returns a line for each bridge of pods, and for the pods that the daemon does not manage.
func podsLines(p status.Pods, now time.Time) (lines []string) {
	for _, b := range p.Bridges {
		text := fmt.Sprintf("%d without a bridge", b.Pods)
		if b.Name != "" {
			text = fmt.Sprintf("%d on %s", b.Pods, b.Name)
			if len(b.Addresses) > 0 {
				text += " " + join(b.Addresses)
			}
			if b.MTU != 0 {
				text += fmt.Sprintf(", MTU %d", b.MTU)
			}
		}
		if b.InSync {
			text += ": in sync"
		} else {
			text += fmt.Sprintf(": out of sync for %s: %s", ago(now, b.Since), strings.Join(texts(b.Differs), ", "))
		}
		lines = append(lines, text)
	}
	for _, u := range p.Unmanaged {
		lines = append(lines, fmt.Sprintf("%d not managed: %s", u.Count, u.Why))
	}
	if len(lines) == 0 {
		lines = append(lines, fmt.Sprintf("%d, of which none has an interface on this node", p.Count))
	}
	return lines
}

func entriesLine(entries map[string]status.Count) string {
	var parts []string
	for _, kind := range network.Kinds() {
		c := entries[kind]
		if c == (status.Count{Optional: c.Optional}) {
			continue
		}
		text := fmt.Sprintf("%s %d", kind, c.Wanted)
		if c.Pending > 0 {
			text += fmt.Sprintf(" (%d pending)", c.Pending)
		}
		parts = append(parts, text)
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

func repairsLine(r status.Repairs, now time.Time) string {
	if r.Total == 0 {
		return "none"
	}
	var parts []string
	for _, c := range r.Counts {
		parts = append(parts, fmt.Sprintf("%d %s %s", c.Count, c.Kind, c.What))
	}
	text := fmt.Sprintf("%d: %s", r.Total, strings.Join(parts, ", "))
	if len(r.Last) > 0 {
		last := r.Last[0]
		text += fmt.Sprintf("; last %s ago: %s %s", ago(now, last.At), last.Kind, last.Key)
		if last.By != "" {
			text += ", by " + last.By
		}
	}
	return text
}

func storeLine(e status.Store, now time.Time) string {
	if e.LastContact.IsZero() {
		return "not reached yet"
	}
	return fmt.Sprintf("%s, revision %d, latency %s, last contact %s ago",
		e.Endpoint, e.Revision, e.Latency.Round(10*time.Microsecond), ago(now, e.LastContact))
}

func join[T any](all []T) string { return strings.Join(texts(all), " ") }

func texts[T any](all []T) []string {
	text := make([]string, len(all))
	for i, x := range all {
		text[i] = fmt.Sprint(x)
	}
	return text
}

func ago(now, t time.Time) string { return span(now.Sub(t)) }

// span formats a duration: "3 s", "12 min 5 s", "5 h 10 min", "4 d 3 h".
func span(d time.Duration) string {
	d = max(0, d)
	days, hours, minutes, seconds := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d d %d h", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d h %d min", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%d min %d s", minutes, seconds)
	default:
		return fmt.Sprintf("%d s", seconds)
	}
}

// deviceText describes a device: "flannel.1 72:30:36:d0:8b:68, VNI 1, port 8472, MTU 1450, local 192.0.2.1".
func deviceText(d status.Device) string {
	text := d.Name
	if d.MAC != "" {
		text += " " + d.MAC
	}
	for _, s := range d.Settings {
		text += ", " + s.Name + " " + s.Value
	}
	if d.Port != 0 {
		text += fmt.Sprintf(", port %d", d.Port)
	}
	text += fmt.Sprintf(", MTU %d", d.MTU)
	if d.Local.IsValid() {
		text += ", local " + d.Local.String()
	}
	if u := d.UserSpace; u != nil {
		text += ", " + u.String()
	}
	return text
}
