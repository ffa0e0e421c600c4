package bench

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// machineCPU is the time that all of the machine's processors have spent on anything but waiting: user, nice, system, irq and
// softirq of proc_stat(5). What a path costs is spent by both programs, by the kernel on their behalf, and in softirqs that
// are nobody's, so that no process's own account has it all. What else runs on the machine is in it too.
func machineCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachineCPU(string(b))
}

func parseMachineCPU(stat string) (sum time.Duration, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	// Columns 4 and 5 are idle and iowait, 8 on are the hypervisor's and guests', which user has already.
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0, errors.New("/proc/stat: the first line is not that of all processors")
	}
	for _, column := range []int{1, 2, 3, 6, 7} {
		ticks, err := strconv.ParseInt(fields[column], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += time.Duration(ticks) * time.Second / 100 // USER_HZ is 100 on all that Go runs on
	}
	return sum, nil
}
