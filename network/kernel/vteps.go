package kernel

import (
	"net/netip"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

// Filter has VTEPs be let in by f from now on, or by nobody if f is nil: then every one is. What f lets in already is told
// by [Kernel.ReadVTEPs].
func (k *Kernel) Filter(f *vtepfilter.Filter) { k.filter = f }

// VTEPs has the filter accept peers, or no longer accept them. Without a filter it does nothing.
func (k *Kernel) VTEPs(batch []network.Update[netip.Addr, network.VTEP]) {
	if k.filter != nil {
		vtepfilter.Update(k.filter, batch)
	}
}

// ReadVTEPs reads which VTEPs the filter lets in.
func (k *Kernel) ReadVTEPs() error {
	if k.filter == nil {
		return nil
	}
	present, _, err := k.filter.Read()
	if err != nil {
		return err
	}
	t := k.tables.VTEPs
	t.Mark()
	for _, a := range present {
		t.Observe(a, network.VTEP{})
	}
	t.Sweep(func(netip.Addr) bool { return true })
	return nil
}
