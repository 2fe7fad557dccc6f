package address

import (
	"encoding/hex"
	"testing"
)

// TestCMAC holds cmac against the vectors of RFC 4493 section 4.
func TestCMAC(t *testing.T) {
	const message = "6bc1bee22e409f96e93d7e117393172a" + "ae2d8a571e03ac9c9eb76fac45af8e51" +
		"30c81c46a35ce411e5fbc1191a0a52ef" + "f69f2445df4f9b17ad2b417be66c3710"
	octets := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	c, err := newCMAC([16]byte(octets("2b7e151628aed2a6abf7158809cf4f3c")))
	if err != nil {
		t.Fatal(err)
	}
	for _, subkey := range []struct {
		name, want string
		got        [16]byte
	}{
		{"K1", "fbeed618357133667c85e08f7236a8de", c.k1},
		{"K2", "f7ddac306ae266ccf90bc11ee46d513b", c.k2},
	} {
		if got := hex.EncodeToString(subkey.got[:]); got != subkey.want {
			t.Errorf("%s = %s, want %s", subkey.name, got, subkey.want)
		}
	}
	for _, v := range []struct {
		octets int
		want   string
	}{
		{0, "bb1d6929e95937287fa37d129b756746"},
		{16, "070a16b46b4d4144f79bdd9dd04a287c"},
		{40, "dfa66747de9ae63030ca32611497c827"},
		{64, "51f0bebf7e3b9d92fc49741779363cfe"},
	} {
		mac := [16]byte{1, 2, 3} // what was there before does not matter
		c.sum(&mac, octets(message)[:v.octets])
		if got := hex.EncodeToString(mac[:]); got != v.want {
			t.Errorf("MAC of %d octets = %s, want %s", v.octets, got, v.want)
		}
	}
}
