package cli

import "testing"

// The demo shows what it says, in a service and with mail that are real.
func TestDemo(t *testing.T) {
	code, out, errs := runWith(t, nil, "", "demo")
	if code != exitOK {
		t.Fatalf("exit %d: %s\n%s", code, errs, out)
	}
	demand(t, out, `200 OK: You are unsubscribed`, `In-Reply-To: <\S+\.b-[a-z2-7]{61}@\S+>`, `newsletter refused +ada@work\.example: OPTED_OUT_ALL`, `newsletter refused +用户@例子\.example: OPTED_OUT_ALL`,
		`newsletter sent +grete@bücher\.example`, `all is well: ledger`)
}
