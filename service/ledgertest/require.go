package ledgertest

import (
	"os"
	"testing"
)

// RequireReal is the environment variable that, set to "1", makes a test fail that lacks what it needs, instead of skipping.
const RequireReal = "OPTOUT_REQUIRE_REAL"

// Require skips the test unless ok; what says what it needs ("faults at system calls need strace"). With OPTOUT_REQUIRE_REAL=1
// it fails the test: where everything must run, nothing is skipped in silence.
func Require(t testing.TB, what string, ok bool) {
	t.Helper()
	switch {
	case ok:
	case os.Getenv(RequireReal) == "1":
		t.Fatalf("%s, and %s=1 says that nothing may be skipped", what, RequireReal)
	default:
		t.Skip(what)
	}
}
