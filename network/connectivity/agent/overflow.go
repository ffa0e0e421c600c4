package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// overflows counts the datagrams that this pod's sockets had no room for, since the agent did not read them in time:
// RcvbufErrors of each family (Documentation/networking/snmp_counter.rst).
func overflows() (sum uint64, err error) {
	for file, parse := range map[string]func(string) (uint64, error){
		"/proc/net/snmp": parseSNMP, "/proc/net/snmp6": parseSNMP6,
	} {
		data, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // there is no IPv6
		}
		if err != nil {
			return 0, err
		}
		n, err := parse(string(data))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", file, err)
		}
		sum += n
	}
	return sum, nil
}

// parseSNMP reads two lines for each protocol: the names, and the numbers.
func parseSNMP(text string) (uint64, error) {
	var names []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		if i := slices.Index(names, "RcvbufErrors"); i > 0 && i < len(fields) {
			return strconv.ParseUint(fields[i], 10, 64)
		}
	}
	return 0, errors.New("there is no RcvbufErrors of Udp")
}

// parseSNMP6 reads a name and a number a line.
func parseSNMP6(text string) (uint64, error) {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "Udp6RcvbufErrors" {
			return strconv.ParseUint(fields[1], 10, 64)
		}
	}
	return 0, errors.New("there is no Udp6RcvbufErrors")
}
