package cniplugin

import "testing"

// BenchmarkRender is what the plugin does by itself in an ADD, beyond starting and calling the delegate.
func BenchmarkRender(b *testing.B) {
	f := testFile()
	n := netConf{Name: "cbr0", Delegate: object{"hairpinMode": []byte("true"), "isDefaultGateway": []byte("true")}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := render(n, f); err != nil {
			b.Fatal(err)
		}
	}
}
