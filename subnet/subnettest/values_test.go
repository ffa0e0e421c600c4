package subnettest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// quoted is text as a JSON string.
func quoted(text string) string {
	b, _ := json.Marshal(text) // a string always encodes
	return string(b)
}

// badJSON are values that are no JSON object.
func (c *corpus) badJSON() {
	utf16 := func(text string) string {
		var b strings.Builder
		for _, r := range text {
			b.WriteByte(byte(r))
			b.WriteByte(0)
		}
		return b.String()
	}
	for _, value := range []string{
		"", " ", "\n", "\x00", "\x00\x00\x00\x00", "{", "}", "{{}}", "[", "]", `"`, ",", ":", "nul", "nulll",
		"NULL", "True", "undefined", "NaN", "Infinity", "-Infinity", "+1", "01", ".5", "1.", "1e", "0x1f", "'a'",
		"PublicIP: 172.31.0.99\nBackendType: vxlan", "<lease><PublicIP>172.31.0.99</PublicIP></lease>",
		"PublicIP=172.31.0.99", "172.31.0.99", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "\x0a\x0b172.31.0.99",
		"\x89PNG\r\n\x1a\n", "\xef\xbb\xbf" + good, "\xff\xfe" + utf16(good[:40]), utf16(good[:40]), good + "}",
		good + "," + good, good + good, good + "\x00", good + "x", good + "\n" + good, "[" + good, good + "]",
		"x" + good, "\x00" + good, strings.Replace(good, "}", ",}", 1),
		strings.Replace(good, `{"VNI"`, `{,"VNI"`, 1), strings.Replace(good, `,"NodeName"`, `"NodeName"`, 1),
		strings.Replace(good, `"NodeName":`, `"NodeName"`, 1),
		strings.Replace(good, `"NodeName":`, `"NodeName"=`, 1), strings.Replace(good, `"NodeName"`, `NodeName`, 1),
		strings.ReplaceAll(good, `"`, `'`), strings.Replace(good, `"node-99"`, `"node-99`, 1),
		strings.Replace(good, `"node-99"`, `node-99"`, 1), strings.Replace(good, `node-99`, "node\n99", 1),
		strings.Replace(good, `node-99`, "node\x0099", 1), strings.Replace(good, `node-99`, "node\t99", 1),
		strings.Replace(good, `node-99`, `node\x39`, 1), strings.Replace(good, `node-99`, `node\u12`, 1),
		strings.Replace(good, `node-99`, `node\uZZZZ`, 1), strings.Replace(good, `node-99`, `node\`, 1),
		strings.Replace(good, `node-99`, `\'`, 1),
		strings.Replace(good, `{"PublicIP"`, `{/* comment */"PublicIP"`, 1),
		strings.Replace(good, `{"PublicIP"`, "{// comment\n\"PublicIP\"", 1), "# comment\n" + good,
		strings.Replace(good, `"VNI":1`, `"VNI":01`, 1), strings.Replace(good, `"VNI":1`, `"VNI":0x1`, 1),
		strings.Replace(good, `"VNI":1`, `"VNI":+1`, 1), strings.Replace(good, `"VNI":1`, `"VNI":1.`, 1),
		strings.Replace(good, `"VNI":1`, `"VNI":NaN`, 1), strings.Replace(good, `"VNI":1`, `"VNI":`, 1),
		strings.Replace(good, `"VNI":1`, `"VNI":1_000`, 1), strings.Replace(good, `"VNI":1`, `"VNI":1 2`, 1),
		strings.Replace(good, `"VNI":1`, `"VNI":Infinity`, 1), strings.Replace(good, `"VNI":1`, `"VNI":1e+`, 1),
		strings.Repeat("[", 100), strings.Repeat("[", 4096), strings.Repeat(`{"a":`, 819),
		strings.Repeat(`[{"a":`, 200), strings.Repeat("[", 500) + strings.Repeat("]", 499),
		strings.Repeat(`"`, 999), strings.Repeat("\\", 900), strings.Repeat("\x00", 900),
		strings.Repeat("\xff", 900), strings.Repeat("9", 900) + "x", strings.Repeat("-", 900),
	} {
		c.bad("46", value, "not JSON")
	}
	for _, value := range []string{
		"[]", "[[]]", "[null]", "[{}]", "[" + good + "]", "0", "1", "-1", "1.5", "1e5", "1e99999",
		strings.Repeat("9", 4000), "-" + strings.Repeat("9", 900), "0." + strings.Repeat("0", 900), "true", "false",
		`""`, `"172.31.0.99"`, quoted(good), `"` + strings.Repeat("x", 900) + `"`,
		strings.Repeat("[", 2000) + strings.Repeat("]", 2000),
	} {
		c.bad("46", value, "want an object")
	}
	for _, value := range []string{
		"null", "{}", `{"":""}`, `{"a":1}`, `{"\u0000":0}`, `{"Public IP":"172.31.0.99"}`,
		`{"public_ip":"172.31.0.99"}`, `{"PublicIP ":"172.31.0.99"}`, `{"PublicIP\u0000":"172.31.0.99"}`,
		`{"value":` + good + `}`, `{"a":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
		strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200), `{"a":` + strings.Repeat("9", 900) + `}`,
		`{"a":"` + strings.Repeat("x", 900) + `"}`, `{` + strings.Repeat(`"a":1,`, 150) + `"b":2}`,
	} {
		c.bad("4", value, "no PublicIP")
	}
	for _, n := range []int{4097, 8192} {
		why := fmt.Sprintf("value of %d bytes, want at most 4096", n)
		c.bad("4", good+strings.Repeat(" ", n-len(good)), why)
		c.bad("6", strings.Repeat("\n", n-len(good))+good, why)
		c.bad("46", strings.Repeat("[", n), why)
	}
}

// badFields are values with one field that is wrong.
func (c *corpus) badFields() {
	for _, field := range []string{"PublicIP", "PublicIPv6", "BackendType", "InstanceID", "NodeName"} {
		for _, text := range []string{
			"0", "1", "-1", "1.5", "1e400", strings.Repeat("9", 900), "true", "false", "[]", `["172.31.0.99"]`,
			"{}", `{"a":1}`, strings.Repeat("[", 200) + strings.Repeat("]", 200),
		} {
			c.bad("46", with(field, text), field+" is ")
		}
	}
	c.badAddresses()
	for _, text := range []string{
		`""`, "null", "", `"VXLAN"`, `"Vxlan"`, `"vxlan "`, `" vxlan"`, `"vxlаn"`, `"host-gw"`, `"udp"`,
		`"wireguard"`, `"ipip"`, `"none"`, `"../vxlan"`, `"vxlan,host-gw"`, `"%s"`,
	} {
		c.bad("46", with("BackendType", text), "backend is ")
	}
	for _, f := range []struct {
		name  string
		limit int
	}{{"BackendType", 64}, {"InstanceID", 64}, {"NodeName", 253}} {
		for _, n := range []int{f.limit + 1, 1000} {
			c.bad("46", with(f.name, quoted(strings.Repeat("x", n))),
				fmt.Sprintf("%s of %d bytes, want at most %d", f.name, n, f.limit))
		}
		for _, text := range []string{
			"\x00", "a\x00b", "a\nb", "\r", "\t", "\x1b[31mred", "\x07", "\x7f", "\u0085", "\u200b", "\u200e",
			"\u202e", "\u2028", "\ufeff", "\u00a0", "\ue000", "\U000e0001",
		} {
			c.bad("46", with(f.name, quoted(text)), f.name+" is ")
		}
	}
	// Go's decoder, and so every reader of these values, takes the last of several.
	for _, twice := range []struct{ also, why string }{
		{`"PublicIP":"127.0.0.1"`, "127.0.0.1 is not a unicast address"},
		{`"publicip":"127.0.0.2"`, "127.0.0.2 is not a unicast address"},
		{`"PUBLICIP":null`, "no PublicIP"},
		{`"PublicIP":""`, "no PublicIP"},
		{`"PublicIP":"172.31.0.98","PublicIP":"x"`, "want an IPv4 address"},
		{`"publicIPv6":"::1"`, "::1 is not a unicast address"},
		{`"PublicIPv6":null`, "no PublicIPv6"},
		{`"BackendType":"host-gw"`, `backend is "host-gw"`},
		{`"backendtype":""`, `backend is ""`},
		{`"BackendData":null`, "no BackendData"},
		{`"backenddata":{"VNI":2}`, "VNI is 2"},
		{`"BackendData":[]`, "want an object"},
		{`"BackendV6Data":null`, "no BackendData"},
		{`"NodeName":1`, "NodeName is 1"},
		{`"InstanceID":[]`, "InstanceID is "},
		{`"PublicIP":7`, "PublicIP is "},
		{`"BacKendType":"udp"`, `backend is "udp"`},
		{`"InſtanceID":1`, "InstanceID is "},
		{`"publicıp":"x","PublicIP":"0.0.0.0"`, "0.0.0.0 is not a unicast address"},
		{`"Public\u0049P":"0.0.0.0"`, "0.0.0.0 is not a unicast address"},
	} {
		c.bad("46", good[:len(good)-1]+","+twice.also+"}", twice.why)
	}
}

// badAddresses are values with a public IP that nobody can be reached at.
func (c *corpus) badAddresses() {
	both := func(text, why string) {
		c.bad("46", with("PublicIP", text), why)
		c.bad("46", with("PublicIPv6", text), why)
	}
	for _, text := range []string{"null", `""`, ""} {
		both(text, "no PublicIP")
	}
	for _, text := range []string{
		" ", "x", "localhost", "example.com", "node-99", "eth0", "0", "1", "172.31.0", "172.31.0.99.1",
		"172.31.0.256", "172.31.0.099", "0172.31.0.99", "0xac.31.0.99", "2887712867", "172.31.0.99/24",
		"172.31.0.99/32", "172.31.0.99:8472", "172.31.0.99 ", " 172.31.0.99", "172.31.0.99\n", "172.31.0.99\x00",
		"172.31.0.99,172.31.0.98", "172.31.0.99 172.31.0.98", "１72.31.0.99", "172。31。0。99", "-1.31.0.99",
		"172.31.0.99%eth0", "::ffff:172.31.0.99", "::ffff:ac1f:63", "[fd00:31::99]", "fd00:31::99/64",
		"fd00:31::99%eth0", "fe80::1%eth0", "fd00:31::99:", "fd00:31:::99", "fd00::31::99", "fd00:31::g", "12345::",
		"[fd00:31::99]:8472", ":", "::%", "../../x", "$(reboot)", "\x1b[31m", "\u202e1.0.31.271",
		strings.Repeat("1", 900), strings.Repeat("\x01", 200), strings.Repeat("172.31.0.99,", 90),
	} {
		both(quoted(text), "address")
	}
	for _, a := range []string{
		"0.0.0.0", "0.0.0.1", "0.1.2.3", "127.0.0.1", "127.255.255.254", "169.254.0.1", "169.254.169.254",
		"224.0.0.1", "239.255.255.250", "255.255.255.255",
	} {
		c.bad("46", with("PublicIP", quoted(a)), a+" is not a unicast address")
		c.bad("4", with("PublicIP", quoted(a)), a+" is not a unicast address")
	}
	for _, a := range []string{
		"::", "::1", "fe80::1", "febf::1", "ff02::1", "ff02::2", "ff00::",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		c.bad("46", with("PublicIPv6", quoted(a)), a+" is not a unicast address")
		c.bad("6", with("PublicIPv6", quoted(a)), a+" is not a unicast address")
	}
	for _, a := range []string{"10.5.0.0", "10.5.1.0", "10.5.12.1", "10.5.99.1", "10.5.200.1", "10.5.255.255"} {
		c.bad("4", with("PublicIP", quoted(a)), a+" is inside the overlay")
	}
	for _, a := range []string{
		"fd00:5::", "fd00:5:0:1::1", "fd00:5:0:c::1", "fd00:5:0:c8::1", "fd00:5:0:ff:ffff:ffff:ffff:ffff",
	} {
		c.bad("6", with("PublicIPv6", quoted(a)), a+" is inside the overlay")
	}
	c.bad("4", with("PublicIP", `"fd00:31::99"`), "want an IPv4 address")
	c.bad("6", with("PublicIPv6", `"172.31.0.99"`), "want an IPv6 address")
	c.bad("4", with("PublicIP", `"172.31.0.11"`), "172.31.0.11 is our own")
	c.bad("46", with("PublicIP", `"172.31.0.11"`), "172.31.0.11 is our own")
	c.bad("6", with("PublicIPv6", `"fd00:31::11"`), "fd00:31::11 is our own")
	c.bad("46", with("PublicIPv6", `"fd00:31::11"`), "fd00:31::11 is our own")
	c.bad("4", with("PublicIP", `"172.31.0.255"`), "is the broadcast address of 172.31.0.0/24")
}

// badBackendData are values with data that the vxlan backend cannot use.
func (c *corpus) badBackendData() {
	both := func(data, why string) {
		c.bad("4", with("BackendData", data), why)
		c.bad("6", with("BackendV6Data", data), why)
		c.bad("46", with("BackendData", data), why)
		c.bad("46", with("BackendV6Data", data), why)
	}
	both("", "no BackendData")
	both("null", "no BackendData")
	for _, data := range []string{
		"0", "1", "true", "[]", `[{"VNI":1,"VtepMAC":"0e:05:00:00:00:63"}]`, `""`,
		quoted(`{"VNI":1,"VtepMAC":"0e:05:00:00:00:63"}`), strings.Repeat("9", 500),
		strings.Repeat("[", 250) + strings.Repeat("]", 250),
	} {
		both(data, "want an object")
	}
	for _, data := range []string{
		`"` + strings.Repeat("x", 600) + `"`,
		`{"VNI":1,"VtepMAC":"0e:05:00:00:00:63","x":"` + strings.Repeat("x", 500) + `"}`,
		strings.Repeat("[", 300) + strings.Repeat("]", 300), strings.Repeat("9", 1000),
		`{"VNI":1` + strings.Repeat("0", 600) + `}`, strings.Repeat(`{"a":`, 150) + "1" + strings.Repeat("}", 150),
	} {
		both(data, "bytes, want at most 512")
	}
	mac := func(vni, mac string) string { return fmt.Sprintf(`{"VNI":%s,"VtepMAC":%s}`, vni, mac) }
	for _, vni := range []string{
		"-1", "-0.5", "1.5", "1e2", "1E400", "1e-1", "4294967296", "18446744073709551617", strings.Repeat("9", 400),
		`"1"`, `""`, "true", "[]", "[1]", "{}",
	} {
		both(mac(vni, `"0e:05:00:00:00:63"`), "want uint32")
	}
	for _, vni := range []string{"0", "2", "8472", "16777215", "16777216", "16777217", "4294967295"} {
		both(mac(vni, `"0e:05:00:00:00:63"`), "VNI is "+vni+", want 1")
	}
	for _, text := range []string{"7", "true", "[]", "[14,5,0,0,0,99]", "{}"} {
		both(mac("1", text), "want string")
	}
	for _, text := range []string{
		"", " ", "x", "0e:05:00:00:00", "0e:05:00:00:00:6", "0e:05:00:00:00:63:00", "0e:05:00:00:00:00:00:63",
		"0e-05-00-00-00-63", "0e05.0000.0063", "0e0500000063", "0x0e0500000063", " 0e:05:00:00:00:63",
		"0e:05:00:00:00:63 ", "0e:05:00:00:00:6g", "0e:05:00:00:00:６3", "0e:05:00:00:00\x00:63",
		"0e:05:00:00:00;63", "0e:05:00::00:00:63", "+e:05:00:00:00:63", "172.31.0.99", "ether 0e:05:00:00:",
		"\x1b[31m", "😀😀😀😀x",
	} {
		both(mac("1", quoted(text)), "is not a MAC address")
	}
	both(mac("1", quoted(strings.Repeat("0e:", 120))), "VtepMAC of 360 bytes")
	both(`{}`, "is not a MAC address")
	both(`{"VNI":1}`, "is not a MAC address")
	both(`{"VtepMAC":null}`, "is not a MAC address")
	both(`{"VNI":1,"MAC":"0e:05:00:00:00:63"}`, "is not a MAC address")
	for _, text := range []string{
		"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "FF:FF:FF:FF:FF:FF", "01:00:00:00:00:00", "01:00:5e:00:00:01",
		"01:00:5e:7f:ff:fa", "01:80:c2:00:00:00", "01:80:c2:00:00:0e", "33:33:00:00:00:01", "33:33:ff:00:00:01",
		"03:05:00:00:00:63", "0f:05:00:00:00:63", "fd:05:00:00:00:63", "0F:05:00:00:00:63",
	} {
		both(mac("1", quoted(text)), "is not the address of one device")
	}
	for _, data := range []string{
		`{"VNI":1,"VNI":2,"VtepMAC":"0e:05:00:00:00:63"}`, `{"vni":2,"VtepMAC":"0e:05:00:00:00:63"}`,
		`{"VtepMAC":"0e:05:00:00:00:63","vNi":2}`,
	} {
		both(data, "VNI is 2, want 1")
	}
	for _, data := range []string{
		`{"VNI":1,"VtepMAC":"0e:05:00:00:00:63","VtepMAC":"01:00:5e:00:00:01"}`,
		`{"VNI":1,"VtepMAC":"0e:05:00:00:00:63","vtepmac":"01:00:5e:00:00:01"}`,
	} {
		both(data, "is not the address of one device")
	}
	c.peersMACs(mac)
}

// peersMACs are the values of clones.
func (c *corpus) peersMACs(mac func(vni, mac string) string) {
	for _, vni := range []string{"1", "null"} {
		for _, pattern := range []string{"4", "46"} {
			c.bad(pattern, with("BackendData", mac(vni, `"0e:05:00:00:00:0c"`)),
				"MAC 0e:05:00:00:00:0c (IPv4) is that of the older lease 10.5.12.0-24&fd00:5:0:c::-64")
			c.bad(pattern, with("BackendData", mac(vni, `"0E:05:00:00:00:0D"`)),
				"MAC 0e:05:00:00:00:0d (IPv4) is that of the older lease 10.5.13.0-24")
		}
		for _, pattern := range []string{"6", "46"} {
			c.bad(pattern, with("BackendV6Data", mac(vni, `"0e:05:00:00:06:0c"`)),
				"MAC 0e:05:00:00:06:0c (IPv6) is that of the older lease 10.5.12.0-24&fd00:5:0:c::-64")
			c.bad(pattern, with("BackendV6Data", mac(vni, `"0E:05:00:00:06:0E"`)),
				"MAC 0e:05:00:00:06:0e (IPv6) is that of the older lease fd00:5:0:e::-64")
		}
	}
	c.bad("4", with("BackendData", `{"VtepMAC":"0e:05:00:00:00:0c"}`), "is that of the older lease")
	for _, p := range Peers() { // the whole value of a peer, as a clone with a new subnet would have it
		pattern := "46"
		if !strings.Contains(p.Name, "&") {
			pattern = map[bool]string{true: "6", false: "4"}[strings.Contains(p.Name, ":")]
		}
		value, err := p.Value()
		if err != nil {
			c.t.Fatal(err)
		}
		c.bad(pattern, string(value), "is that of the older lease "+p.Name)
	}
}
