package report

// form is a kind of system that reports in words of its own, for want of the standard's format. A message is of the first form
// of the table that fits. Texts are in lower case, each run of white space one space; of a list, one is enough; an empty list
// asks for nothing.
type form struct {
	name string
	// from are in the From field; without any, the sender must be a robot: see robots.
	from []string
	// subject are in the subject, and opening in the first words of the text.
	subject, opening []string
	// behind begin the words about the recipients, where what is before names others; without any, all of the text is read.
	behind []string
	// action is what the report says was done (RFC 3464 section 2.3.3); "failed" when empty.
	action string
}

// robots are who reports in the name of a mail system: in the From field.
var robots = []string{"mailer-daemon", "mailer daemon", "mailerdaemon", "mail-daemon", "postmaster", "mail delivery", "mail.delivery", "mdaemon", "mail administrator", "system administrator", "delivery subsystem"}

// forms is the table, the special before the general, what is still tried before what failed.
var forms = []form{
	// Still tried: no failure yet.
	{name: "Exim, delayed", subject: []string{"warning: message"}, opening: []string{"has not yet been delivered"}, action: "delayed"},
	{name: "delayed", opening: []string{"has not yet been delivered", "recipient has been delayed", "this is a warning message only", "has been postponed", "still being retried",
		"delivery attempts will continue to be made", "we will continue to try to deliver", "it will be retried until"}, action: "delayed"},
	{name: "Symantec gateway, delayed", from: []string{"symantec_antivirus_for_smtp"}, opening: []string{"delivery attempts will continue"}, action: "delayed"},

	{name: "qmail", opening: []string{"this is the qmail-send program", "i'm afraid i wasn't able to deliver", "--- below this line is a copy of the message", "--- below the next line is a copy"}},
	{name: "Exim", opening: []string{"this message was created automatically by mail delivery", "a message that you sent could not be delivered"}},
	{name: "Postfix", opening: []string{"this is the postfix", "i'm sorry to have to inform you that"}},
	{name: "Sendmail", subject: []string{"returned mail"}, opening: []string{"----- the following addresses had", "the original message was received at", "delivery to the following"}},
	{name: "Exchange", opening: []string{"did not reach the following recipient", "delivery has failed to these recipients", "recipient(s) could not be reached", "did not reach some or all of the intended recipients"},
		behind: []string{"did not reach the following", "delivery has failed to these", "could not be reached"}},
	{name: "Microsoft SMTP, Gmail of old", subject: []string{"delivery status notification"}, opening: []string{"this is an automatically generated delivery status notification"}},
	{name: "Lotus Domino", subject: []string{"delivery failure"}, opening: []string{"was not delivered to:"}},
	{name: "Novell GroupWise", subject: []string{"undeliverable"}, opening: []string{"was undeliverable to the following"}},
	{name: "Yahoo", opening: []string{"unable to deliver message to the following address", "we were unable to deliver your message to the following"}},
	{name: "IMail", subject: []string{"undeliverable mail"}, opening: []string{"original message follows"}},
	{name: "MDaemon", from: []string{"mdaemon@"}, opening: []string{"did not receive a copy of your message", "no such user here", "your message was not delivered"}},
	{name: "InterScan", from: []string{"imss@", "inetgw", "interscan"}, opening: []string{"message from interscan", "sent <<<"}},
	{name: "KDDI", from: []string{"no-reply@"}, opening: []string{"your mail sent on:"}},
	{name: "CSM gateway", from: []string{"smtp_mail_service"}, opening: []string{"------ failed recipients ------"}},
	{name: "MailEnable", opening: []string{"mailenable: message could not be delivered"}},
	{name: "LISTSERV's gateway", opening: []string{"error-for:"}},
	{name: "Kerio, hMailServer and others", from: []string{"admin@", "administrator"}, subject: []string{"non-delivery:", "delivery failure"}, opening: []string{"--- non-delivery report ---", "could not deliver message to the following recipient"}},

	// Servers of no known make, by what nearly all say.
	{name: "by its subject", subject: []string{"undeliver", "delivery fail", "delivery status", "failure notice", "returned mail", "mail delivery", "delivery problem", "delivery error", "message delivery failure", "failure delivery",
		"mail failed", "could not be delivered", "not delivered", "non-delivery", "mail system error", "mail error", "error sending your mail", "processing error", "user unknown", "unzustellbar", "nicht zugestellt", "non remis",
		"no se ha podido entregar", "no se pudo entregar", "non recapitabile", "niet bezorgd", "niedoręczon", "不達", "配信不能", "退信", "не доставлен"}},
	{name: "by its opening", opening: []string{"could not be delivered", "was not delivered", "cannot be delivered", "unable to deliver", "has not been delivered", "delivery failed", "were unable to deliver", "had permanent fatal errors",
		"returned to sender", "undeliverable", "not a valid user here", "konnte nicht zugestellt werden", "n'a pas pu être", "no pudo ser entregado", "non è stato possibile", "не может быть доставлено", "配信できません"}},
}

// endings begin the line behind which a report repeats the original message.
var endings = []string{"this is a copy of", "below this line is a copy", "below the next line is a copy", "a copy of the original message below", "original message", "the original message follows", "included is a copy", "here is a copy of the first", "the header of the original",
	"the header and top", "message header", "start of returned message", "returned message ---", "returned mail follows", "returned mail ---", "header of the source mail", "message text follows", "unsent message below", "the first 50 lines of your original", "forwarded message",
	"return-path:", "received:", "mensaje original", "attachment is a copy", "your message reads (in part)", "old message:", "a summary of the undelivered message", "the following is a copy"}
