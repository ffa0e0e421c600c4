package kernel

import (
	"net/netip"

	"github.com/selvage-net/selvage/network"
	"github.com/selvage-net/selvage/network/vtepfilter"
)

// Filter sets the VTEP filter that changes are applied to; nil: there is none, and every VTEP is accepted.
// [Kernel.ReadVTEPs] reads which VTEPs it accepts already.
func (k *Kernel) Filter(f *vtepfilter.Filter) { k.filter = f }

// VTEPs has the filter accept peers, or no longer accept them. Without a filter it does nothing.
func (k *Kernel) VTEPs(batch []network.Update[netip.Addr, network.VTEP]) {
	if k.filter != nil {
		vtepfilter.Update(k.filter, batch)
	}
}

// ReadVTEPs reads which VTEPs the filter accepts.
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
