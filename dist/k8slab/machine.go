package k8slab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// machineDrops counts the packets that the whole machine has dropped because a processor's queue of packets was full
// (net.core.netdev_max_backlog), whichever namespace they were in: all labs on a machine share it.
func machineDrops() (uint64, error) {
	data, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return 0, err
	}
	return parseSoftnet(string(data))
}

// parseSoftnet adds up the second column: a line is a processor, the numbers are hexadecimal.
func parseSoftnet(text string) (sum uint64, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			return 0, fmt.Errorf("softnet_stat: %q has no second column", line)
		}
		n, err := strconv.ParseUint(fields[1], 16, 64)
		if err != nil {
			return 0, fmt.Errorf("softnet_stat: %w", err)
		}
		sum += n
	}
	return sum, nil
}
