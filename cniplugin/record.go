package cniplugin

import (
	"fmt"
	"time"

	records "github.com/selvage-net/selvage/subnet/attachment"
)

// record stores, for the daemon, what the delegate was asked for and what it made. A container whose record cannot be
// stored works: the daemon then does not watch over what it depends on. So that is no reason to refuse it.
func (c *call) record(d delegation, result []byte) {
	c.made = records.Record{
		Key: c.a.key(), Added: time.Now(), NetNS: c.netns, Delegate: d.plugin, Config: d.config, Result: result,
		Pod: podOf(c.getenv("CNI_ARGS")),
	}
	if err := records.Save(records.Dir(c.conf.SubnetFile), c.made); err != nil {
		fmt.Fprintln(c.Stderr, "selvage: the daemon will not repair what this container depends on:", err)
	}
}

// forget removes the record of an attachment that has ended. One that cannot be removed, as on a file system that is
// mounted read-only, is no reason for a runtime to keep a dead container: without the interface, nothing is desired for
// it. GC tries again.
func (c *call) forget(a attachment) {
	if err := records.Remove(records.Dir(c.conf.SubnetFile), a.key()); err != nil {
		fmt.Fprintln(c.Stderr, "selvage: the daemon sees the record of a container that has ended:", err)
	}
}

// recorded returns the attachments of the network that have a record.
func (c *call) recorded() (list []attachment, err error) {
	keys, err := records.Keys(records.Dir(c.conf.SubnetFile), c.conf.Name)
	for _, k := range keys {
		list = append(list, attachment{k.Network, k.Container, k.Interface})
	}
	return list, err
}

// key is the attachment as the daemon knows it.
func (a attachment) key() records.Key {
	return records.Key{Network: a.network, Container: a.containerID, Interface: a.ifName}
}
