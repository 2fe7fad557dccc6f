package rpc

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	optoutv1 "optout/proto/optout/v1"
	"optout/service/ledger"
)

// Every exported error of the core has a row in this edge's table.
func TestEveryErrorIsMapped(t *testing.T) {
	source, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	mapped := map[string]int{}
	ast.Inspect(source, func(n ast.Node) bool {
		if r, ok := n.(*ast.CompositeLit); ok && r.Type == nil && len(r.Elts) > 0 {
			if e, ok := r.Elts[0].(*ast.SelectorExpr); ok {
				mapped[e.X.(*ast.Ident).Name+"."+e.Sel.Name]++
			}
		}
		return true
	})
	if mapped["link.ErrInvalid"] != 1 {
		t.Error("link.ErrInvalid has no row in the error table")
	}
	found := 0
	for name := range exportedErrors(t, "../ledger") {
		found++
		if mapped["ledger."+name] != 1 {
			t.Errorf("ledger.%s has %d rows in the error table, want 1", name, mapped["ledger."+name])
		}
	}
	if found < 20 {
		t.Errorf("only %d errors found", found)
	}
}

// exportedErrors are the package-level variables of a package that are named Err….
func exportedErrors(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	found := map[string]bool{}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				for _, name := range s.(*ast.ValueSpec).Names {
					if rest, ok := strings.CutPrefix(name.Name, "Err"); ok && rest != "" && unicode.IsUpper(rune(rest[0])) {
						found[name.Name] = true
					}
				}
			}
		}
	}
	return found
}

// Each reason leaves with the code that its comment in errors.proto promises, and none is promised in vain.
func TestCodesAreAsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../proto/optout/v1/errors.proto")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^  // ([A-Z_]+)\. .*(?:\n  // .*)*\n  (ERROR_REASON_[A-Z_0-9]+) = `).FindAllStringSubmatch(string(text), -1) {
		documented[m[2]] = m[1]
	}
	if want := len(optoutv1.ErrorReason_name) - 1; len(documented) != want {
		t.Fatalf("read %d reasons, want %d: %v", len(documented), want, documented)
	}
	given := map[string]bool{
		optoutv1.ErrorReason_ERROR_REASON_INTERNAL.String(): true, // see TestFaultsOfOurs
		// The client refuses by itself: the service sends no mail.
		optoutv1.ErrorReason_ERROR_REASON_POSTAL_ADDRESS_MISSING.String(): true,
	}
	for _, r := range table {
		given[r.reason.String()] = true
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(`"` + strings.Replace(documented[r.reason.String()], "CANCELED", "CANCELLED", 1) + `"`)); err != nil || code != r.code {
			t.Errorf("%v leaves as %v with %v, documented with %q", r.err, r.code, r.reason, documented[r.reason.String()])
		}
	}
	for reason := range documented {
		if !given[reason] {
			t.Errorf("%s is documented, but no error leaves with it", reason)
		}
	}
}

// A method without a policy stops the start, and so does a row that names no method.
func TestPolicyIsComplete(t *testing.T) {
	registered := map[string]grpc.ServiceInfo{}
	for _, names := range []map[string]bool{open, keysOf(policy)} {
		for full := range names {
			service, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
			info := registered[service]
			info.Methods = append(info.Methods, grpc.MethodInfo{Name: method})
			registered[service] = info
		}
	}
	if err := checkPolicy(registered); err != nil {
		t.Fatalf("as it is: %v", err)
	}
	const service = "optout.v1.LinkService"
	info := registered[service]
	registered[service] = grpc.ServiceInfo{Methods: append(info.Methods[:len(info.Methods):len(info.Methods)], grpc.MethodInfo{Name: "New"})}
	if err := checkPolicy(registered); err == nil || !strings.Contains(err.Error(), service+"/New") {
		t.Errorf("a method without a policy: %v", err)
	}
	registered[service] = grpc.ServiceInfo{Methods: info.Methods[1:]}
	if err := checkPolicy(registered); err == nil || !strings.Contains(err.Error(), service+"/"+info.Methods[0].Name) {
		t.Errorf("a policy without a method: %v", err)
	}
}

// A call that takes too long is ended, and told apart from one whose caller had no more time or went away.
func TestSlowCallsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		caller func(context.Context) (context.Context, context.CancelFunc)
		code   codes.Code
		reason string
		after  time.Duration
	}{
		"no deadline": {context.WithCancel, codes.Unavailable, "STORAGE_UNAVAILABLE", unaryTimeout},
		"the caller's own": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 5*time.Second)
		}, codes.DeadlineExceeded, "DEADLINE_PASSED", 5 * time.Second},
		"one far away": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Hour)
		}, codes.Unavailable, "STORAGE_UNAVAILABLE", unaryTimeout},
		"the caller went away": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Second, cancel)
			return ctx, cancel
		}, codes.Canceled, "CALLER_GONE", time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := c.caller(t.Context())
			defer cancel()
			start := time.Now()
			_, err := (&handlers{}).unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: healthpb.Health_Check_FullMethodName}, func(ctx context.Context, _ any) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			s := status.Convert(err)
			if s.Code() != c.code || len(s.Details()) != 1 || s.Details()[0].(*errdetails.ErrorInfo).Reason != c.reason || time.Since(start) != c.after {
				t.Errorf("%s: %v after %v: %v", name, err, time.Since(start), s.Details())
			}
		})
	}
}

// Requests on a stream are held to the caller's bounds like single ones.
func TestStreamsAreBound(t *testing.T) {
	k := &ledger.APIKey{Senders: []string{"one"}}
	s := &admitted{oneRequest{}, &handlers{}, "", &call{t.Context(), k}}
	if err := s.RecvMsg(&optoutv1.ListSuppressionsRequest{Sender: "one"}); err != nil {
		t.Error(err)
	}
	if err := s.RecvMsg(&optoutv1.ListSuppressionsRequest{Sender: "two"}); err != errSenderNotAllowed {
		t.Errorf("another sender: %v", err)
	}
}

// oneRequest is a stream whose requests are there already.
type oneRequest struct{ grpc.ServerStream }

func (oneRequest) RecvMsg(any) error { return nil }

func keysOf(m map[string][]ledger.Role) map[string]bool {
	keys := map[string]bool{}
	for k := range m {
		keys[k] = true
	}
	return keys
}

// The numbers of the core are those of the API, for they are cast from one to the other: every constant of these types has the
// number of the enum's value of the same name.
func TestNumbersAgree(t *testing.T) {
	enums := map[string]struct {
		numbers map[string]int32
		prefix  string
		strip   string // of the constant's name
	}{
		"Reason":      {optoutv1.DenialReason_value, "DENIAL_REASON_", "Reason"},
		"Kind":        {optoutv1.EntryKind_value, "ENTRY_KIND_", ""},
		"Channel":     {optoutv1.Channel_value, "CHANNEL_", "By"},
		"Role":        {optoutv1.Role_value, "ROLE_", "Role"},
		"Class":       {optoutv1.TopicClass_value, "TOPIC_CLASS_", ""},
		"ConsentRule": {optoutv1.ConsentRule_value, "CONSENT_RULE_", ""},
		"Ground":      {optoutv1.RequiredGround_value, "REQUIRED_GROUND_", "Ground"},
		"ScopeKind":   {optoutv1.ScopeKind_value, "SCOPE_KIND_", "Scope"},
		"Basis":       {optoutv1.ConsentBasis_value, "CONSENT_BASIS_", ""},
	}
	seen := map[string]int{}
	files, err := filepath.Glob("../ledger/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || v.Type == nil || len(v.Values) != 1 || !v.Names[0].IsExported() {
				return true
			}
			typ, ok := v.Type.(*ast.Ident)
			if !ok || enums[typ.Name].numbers == nil {
				return true
			}
			e, name := enums[typ.Name], v.Names[0].Name
			seen[typ.Name]++
			value, ok := v.Values[0].(*ast.BasicLit)
			number, known := e.numbers[e.prefix+snake(strings.TrimSuffix(strings.TrimPrefix(name, e.strip), "Rule"))]
			if !ok || !known || value.Value != strconv.Itoa(int(number)) {
				t.Errorf("ledger.%s is %v, the API's %s%s is %d (known %v)", name, v.Values[0], e.prefix, snake(strings.TrimPrefix(name, e.strip)), number, known)
			}
			return true
		})
	}
	for name, e := range enums {
		if seen[name] != len(e.numbers)-1 {
			t.Errorf("the core has %d of %s, the API %d", seen[name], name, len(e.numbers)-1)
		}
	}
}

// snake spells OptedOutAll as OPTED_OUT_ALL, Under13 as UNDER_13 and APIKeyCreated as API_KEY_CREATED.
func snake(s string) string {
	s = regexp.MustCompile(`([A-Z]+)([A-Z][a-z])`).ReplaceAllString(s, "${1}_$2")
	s = regexp.MustCompile(`([a-z])([A-Z0-9])`).ReplaceAllString(s, "${1}_$2")
	return strings.ToUpper(s)
}

// Every gRPC code has a status of HTTP.
func TestJSONStatus(t *testing.T) {
	for c := codes.Code(1); c <= 16; c++ {
		if n := httpStatus[c]; n < 400 || n > 599 {
			t.Errorf("%v: %d", c, n)
		}
	}
}
