package k8slab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// withFastPath switches the fast path on in the manifest, with what it needs, as the chart does for its value fastPath.
func withFastPath(manifest string) (string, error) {
	for _, x := range []struct{ from, to string }{
		{"  SELVAGED_HEALTHZ_PORT: \"9470\"\n", "  SELVAGED_HEALTHZ_PORT: \"9470\"\n  SELVAGED_FAST_PATH: \"on\"\n"},
		{`add: ["NET_ADMIN","NET_RAW"]`, `add: ["NET_ADMIN","NET_RAW","BPF","PERFMON"]`},
		{"            - {name: xtables-lock, mountPath: /run/xtables.lock}\n",
			"            - {name: xtables-lock, mountPath: /run/xtables.lock}\n" +
				"            - {name: bpf, mountPath: /sys/fs/bpf}\n"},
		{"        - {name: xtables-lock, hostPath: {path: /run/xtables.lock, type: FileOrCreate}}\n",
			"        - {name: xtables-lock, hostPath: {path: /run/xtables.lock, type: FileOrCreate}}\n" +
				"        - {name: bpf, hostPath: {path: /sys/fs/bpf, type: Directory}}\n"},
	} {
		if n := strings.Count(manifest, x.from); n != 1 {
			return "", fmt.Errorf("want one %q, and there are %d", strings.TrimSpace(x.from), n)
		}
		manifest = strings.Replace(manifest, x.from, x.to, 1)
	}
	return manifest, nil
}

// WithFastPath adds steps that want the fast path to be used: once there are streams, and before a node loses them.
func WithFastPath(steps []Step) (list []Step) {
	after := Step{Name: "packets are fast after all that", run: fastPackets}
	for _, s := range steps {
		if (s.Name == nameOtherRange || s.Name == nameLeaves) && after.run != nil {
			list, after.run = append(list, after), nil
		}
		list = append(list, s)
		if s.Name == nameStreams {
			list = append(list, Step{Name: "packets of the streams are fast", run: fastPackets})
		}
	}
	return list
}

// fastPackets waits until each node sends and receives fast packets.
func fastPackets(ctx context.Context, s *suite) (found []string, err error) {
	for _, n := range s.nodes {
		before, err := n.status(ctx)
		if err != nil {
			return nil, err
		}
		if before.FastPath == nil {
			return nil, fmt.Errorf("%s: the fast path is off", n.Name())
		}
		sent, received := before.FastPath.Fast()
		err = s.eventually(ctx, "fast packets of "+n.Name(), func() error {
			now, err := n.status(ctx)
			if err != nil {
				return err
			}
			if now.FastPath == nil {
				return errors.New("it is off")
			}
			if a, b := now.FastPath.Fast(); a < sent+100 || b < received+100 {
				return fmt.Errorf("%d and %d, before %d and %d: %+v", a, b, sent, received, *now.FastPath)
			}
			found = append(found, fmt.Sprintf("%s: %s", n.Name(), fastCounts(now.FastPath.Packets)))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// fastCountsOf says what became of the packets on each node. Without a fast one it is an error.
func fastCountsOf(ctx context.Context, s *suite) (found []string, err error) {
	for _, n := range s.nodes {
		now, err := n.status(ctx)
		if err != nil {
			return nil, err
		}
		if now.FastPath == nil {
			return nil, fmt.Errorf("%s: the fast path is off", n.Name())
		}
		sent, received := now.FastPath.Fast()
		if sent == 0 || received == 0 {
			return nil, fmt.Errorf("%s: no packet was fast: %+v", n.Name(), *now.FastPath)
		}
		found = append(found, fmt.Sprintf("%s: %s", n.Name(), fastCounts(now.FastPath.Packets)))
	}
	return found, nil
}

func fastCounts(packets map[string]uint64) string {
	var all []string
	for reason, count := range packets {
		if count > 0 {
			all = append(all, fmt.Sprintf("%s %d", reason, count))
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
