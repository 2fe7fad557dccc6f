package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// errNo ends a command whose answer, already given, is no.
var errNo = errors.New("no")

// failure is an error as the program shows it: what is wrong with what, and what to do. It is the object of --json.
type failure struct {
	// Code is the canonical gRPC code's name; INVALID_ARGUMENT for wrong usage.
	Code string `json:"code"`
	// Reason is a name of the API's ErrorReason, where there is one.
	Reason string `json:"reason,omitempty"`
	// Field is the flag, argument or field of the API at fault.
	Field string `json:"field,omitempty"`
	// Message is the whole text.
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`

	exit int
}

// Error returns the message.
func (f *failure) Error() string { return f.Message }

// sentence joins the parts to "FIELD: problem (remedy)".
func sentence(field, problem, remedy string) string {
	s := problem
	if field != "" && !strings.HasPrefix(problem, field+":") {
		s = field + ": " + problem
	}
	if remedy != "" && !strings.Contains(problem, remedy) {
		s += " (" + remedy + ")"
	}
	return s
}

// wrongUsage is the error of whoever called the program.
func wrongUsage(field, problem, remedy string) error {
	return &failure{Code: "INVALID_ARGUMENT", Reason: "INVALID_FIELD", Field: field, Message: sentence(field, problem, remedy), Remedy: remedy, exit: exitError}
}

// exit shows an error, if there is one to show, and returns the exit code.
func (p *program) exit(err error) int {
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errNo) {
		return exitNo
	}
	f := explainError(err)
	if p.json || p.wantsJSON() {
		fmt.Fprintf(p.Stderr, "%s\n", appendJSON(nil, map[string]*failure{"error": f}))
	} else {
		fmt.Fprintf(p.Stderr, "optout: %s\n", printable(f.Message))
	}
	return f.exit
}

// wantsJSON tells whether JSON was asked for when the arguments could not be read to the end.
func (p *program) wantsJSON() bool {
	for _, a := range p.Args {
		switch a {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// explainError turns any error into what is shown.
func explainError(err error) *failure {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f
	}
	f := &failure{Code: "UNKNOWN", Message: err.Error(), exit: exitError}
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		f.Code, f.Message = "CANCELLED", "interrupted: whether a command had its effect is unknown; it may be repeated"
		return f
	}
	st, ok := status.FromError(err)
	if !ok {
		return f
	}
	f.Code, f.Message = codeName(st.Code()), st.Message()
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Domain == "optout" {
			f.Reason, f.Field, f.Remedy = info.Reason, info.Metadata["field"], info.Metadata["remedy"]
		}
	}
	if f.Reason == "UNAUTHENTICATED" {
		f.Remedy = "give an API key of this service: --key-file, OPTOUT_KEY, or --data with its data folder"
	}
	if f.Reason == "" {
		f.Message = cause(f.Message)
		f.Remedy = map[codes.Code]string{
			codes.Unavailable:      "is the service running, is --server its gRPC address, and does it want TLS (--tls-ca)? A command may be repeated: it acts at most once",
			codes.DeadlineExceeded: "repeat the command, it acts at most once; or give a longer --timeout",
			codes.Unimplemented:    "the service is older than this program, or --server is not a gRPC address of optout",
		}[st.Code()]
	}
	f.Message = sentence(f.Field, f.Message, f.Remedy)
	return f
}

// cause is what remains of the message of an error that gRPC itself made when its wrappings are taken off.
func cause(message string) string {
	if i := strings.LastIndex(message, "desc = "); i >= 0 {
		message = message[i+len("desc = "):]
	}
	return strings.TrimPrefix(strings.Trim(message, `"`), "transport: ")
}

// codeName is the canonical name of a code, as the API's documentation spells it.
func codeName(c codes.Code) string {
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && c != codes.OK {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

// flagError is the error of a flag that pflag could not read.
func flagError(cmd *cobra.Command, err error) error {
	see := fmt.Sprintf("see \"%s --help\"", cmd.CommandPath())
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		if near := nearest(name, flagNames(cmd)); near != "" {
			see = "did you mean --" + near + "? " + see
		}
		return wrongUsage("--"+clip(name), "there is no such flag", see)
	}
	var bad *pflag.InvalidValueError
	var unread *strconv.NumError
	if errors.As(err, &bad) && errors.As(err, &unread) {
		return wrongUsage("--"+bad.GetFlag().Name, fmt.Sprintf("%q is %s", clip(bad.GetValue()), unreadNumber(bad.GetFlag().Value.Type(), unread)), see)
	}
	return wrongUsage("", text, see)
}

// unreadNumber says what is wrong with the value of a flag of a type, in place of the name of the function that could not read it.
func unreadNumber(flagType string, err *strconv.NumError) string {
	switch {
	case errors.Is(err, strconv.ErrRange):
		return "a number out of range"
	case flagType == "bool":
		return "neither true nor false"
	case strings.HasPrefix(flagType, "uint"):
		return "no number from 0 on"
	}
	return "no number"
}
